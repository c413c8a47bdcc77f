# Replaces OE-Core's class of this name in level 1 of the tests: the tasks that recipes name. They are not run.
do_fetch() {
    :
}
do_unpack() {
    :
}
do_configure() {
    :
}
do_compile() {
    :
}
do_install() {
    :
}
addtask fetch
addtask unpack after do_fetch
addtask configure after do_unpack
addtask compile after do_configure
addtask install after do_compile
