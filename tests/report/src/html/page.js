// The filter of the cases, and links to suites and cases that are closed. Without it the page shows all of them.
"use strict";
(() => {
  const form = document.getElementById("filter");
  const text = document.getElementById("filter-text");
  const failed = document.getElementById("filter-failed");
  const count = document.getElementById("filter-count");
  const suites = [...document.querySelectorAll("details.suite")].map((element) => ({
    element,
    open: element.open,
    words: element.querySelector("h3").textContent.toLowerCase(),
    cases: [...element.querySelectorAll("li.case")].map((item) => ({
      item,
      words: item.querySelector(".name").textContent.toLowerCase(),
    })),
  }));
  let filtered = false;

  function apply() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (element, own) =>
      (!failed.checked || element.dataset.verdict === "failed") && words.every((word) => own.includes(word));
    const now = words.length > 0 || failed.checked;
    let shown = 0;
    for (const suite of suites) {
      if (now && !filtered) suite.open = suite.element.open;
      let any = 0;
      for (const { item, words: own } of suite.cases) {
        item.hidden = !matches(item, suite.words + " " + own);
        any += item.hidden ? 0 : 1;
      }
      shown += any;
      suite.element.hidden = any === 0 && !matches(suite.element, suite.words);
      if (now) suite.element.open = any > 0 || suite.element.dataset.verdict === "failed";
      else if (filtered) suite.element.open = suite.open;
    }
    filtered = now;
    count.textContent = now ? `${shown} ${shown === 1 ? "case" : "cases"}` : "";
  }

  // Opens what the address refers to, and everything around it.
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let element = target; element; element = element.parentElement) {
      if (element instanceof HTMLDetailsElement) element.open = true;
      element.hidden = false;
    }
    const inner = target.querySelector(":scope > details");
    if (inner) inner.open = true;
    target.scrollIntoView();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  text.addEventListener("input", apply);
  failed.addEventListener("change", apply);
  window.addEventListener("hashchange", reveal);
  form.hidden = false;
  apply(); // the browser may have restored a filter
  reveal();
})();
