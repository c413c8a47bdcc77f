//! Headers that programs write, and hostile ones.

use super::*;

fn entry(path: &str, content: &[u8]) -> Vec<u8> {
    let mut entry = header(path, content.len()).to_vec();
    entry.extend_from_slice(content);
    entry.resize(entry.len() + padding(content.len() as u64) as usize, 0);
    entry
}

fn fails(archive: &[u8]) -> String {
    let mut reader = Reader::new(archive);
    loop {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was accepted"),
            Err(error) => return format!("{error:#}"),
        }
    }
}

fn special(type_flag: u8, content: &[u8]) -> Vec<u8> {
    let mut entry = entry("x", content);
    entry[156] = type_flag;
    sum(&mut entry);
    entry
}

fn sum(entry: &mut [u8]) {
    entry[148..156].fill(b' ');
    let sum: u32 = entry[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn entries_are_read_with_long_names_and_content() {
    let long = "d/".repeat(120) + "name";
    let record = format!("path={long}\n");
    let length = record.len() + 4;
    let archive = [
        entry("./a", b"one"),
        special(b'x', format!("{length} {record}").as_bytes()),
        entry("short", b"two"),
        special(b'L', format!("{long}\0").as_bytes()),
        entry("short", b""),
        vec![0; 1024],
    ];
    let archive = archive.concat();
    let mut reader = Reader::new(archive.as_slice());
    let mut found = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let mut content = String::new();
        (&mut reader).take(entry.size).read_to_string(&mut content).unwrap();
        found.push((entry.path, content));
    }
    assert_eq!(found, [("a".into(), "one".into()), (long.clone(), "two".into()), (long, String::new())]);
}

#[test]
fn hostile_headers_are_errors_in_bounded_time_and_memory() {
    assert!(fails(b"x").contains("truncated"));
    assert!(fails(&entry("a", b"one")[..600]).contains("truncated"));
    assert!(fails(&[1; 512]).contains("not a tar archive"));
    assert!(fails(&entry("../a", b"")).contains("leads out"));
    let mut huge = entry("a", b"");
    huge[124..136].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
    sum(&mut huge);
    assert!(fails(&huge).contains("18446744073709551615"));
    let mut long = special(b'L', b"");
    long[124..136].copy_from_slice(b"77777777777\0");
    sum(&mut long);
    assert!(fails(&long).contains("extension header"));
    assert!(fails(&special(b'x', b"99 path=a\n")).contains("damaged archive: invalid extended header"));
    assert!(fails(&special(b'x', b"22 GNU.sparse.major=1\n")).contains("sparse"));
    assert!(fails(&special(b'g', b"10 path=a\n")).contains("global header"));
    assert!(fails(&special(b'x', b"11 size=-1\n")).contains("not a number"));
    assert!(fails(&special(b'S', b"")).contains("sparse"));
    assert!(fails(&special(b'V', b"content")).contains("unknown type"));
    let [name, path] = [special(b'L', b"a\0"), special(b'x', b"10 path=b\n")];
    for both in [[&name, &path], [&path, &name], [&name, &name], [&path, &path]] {
        assert!(fails(&both.map(Vec::as_slice).concat()).contains("extension headers of"), "{both:?}");
    }
    let empty = [special(b'x', b"8 path=\n"), entry("a", b""), vec![0; 1024]].concat();
    assert_eq!(Reader::new(empty.as_slice()).next().unwrap().unwrap().path, "a", "an empty path is ignored");
    let many = entry("a", b"").repeat(ENTRIES + 1);
    assert!(fails(&many).contains("more than"));
}

/// The first entry of `archive`.
fn first(archive: &[u8]) -> Entry {
    Reader::new(archive).next().unwrap().unwrap()
}

/// An entry with the bytes `fields` at these positions of its header.
fn with(fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut entry = entry("name", b"");
    for (at, bytes) in fields {
        entry[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    sum(&mut entry);
    entry
}

#[test]
fn the_fields_of_a_header_are_read() {
    assert_eq!(first(&with(&[(345, b"some/prefix")])).path, "some/prefix/name");
    // GNU tar has another magic, and times in the place of the prefix.
    assert_eq!(first(&with(&[(257, b"ustar  \0"), (345, b"15000000000\0")])).path, "name");
    assert_eq!(first(&with(&[(100, b"0000755\0")])).mode, 0o755);
    assert_eq!(first(&with(&[(124, b"           \0")])).size, 0);
    let binary = first(&with(&[(124, b"\x80\0\0\0\0\0\0\0\0\0\x01\x02")]));
    assert_eq!(binary.size, 0x102);
    assert!(fails(&with(&[(124, b"\x80\0\0\x01\0\0\0\0\0\0\x01\x02")])).contains("number too large"));
    assert!(fails(&with(&[(124, b"9\0")])).contains("not an octal number"));
    for (flag, expected) in [
        (b'0', EntryType::File),
        (0, EntryType::File),
        (b'7', EntryType::File),
        (b'5', EntryType::Directory),
        (b'1', EntryType::Other(b'1')),
        (b'6', EntryType::Other(b'6')),
    ] {
        assert_eq!(first(&with(&[(156, &[flag])])).entry_type, expected, "{flag}");
    }
    assert!(fails(&with(&[(508, b"tar\0")])).contains("format of star"));
    let mut damaged = with(&[]);
    damaged[0] = b'x';
    assert!(fails(&damaged).contains("wrong checksum"));
}

#[test]
fn extension_headers_belong_to_the_next_entry_and_are_passed_on() {
    let extension = |text: &[u8]| special(b'x', text);
    // A size that does not fit into the header.
    let archive = [extension(b"9 size=3\n"), with(&[(124, b"00000000000\0")]), entry("content", b"")].concat();
    assert_eq!(first(&archive).size, 3);
    let global = [special(b'g', b"16 comment=text\n"), entry("a", b"one"), entry("b", b""), vec![0; 1024]].concat();
    let mut reader = Reader::new(global.as_slice());
    let entry_a = reader.next().unwrap().unwrap();
    assert_eq!((entry_a.path.as_str(), entry_a.size, entry_a.raw.len()), ("a", 3, 3 * BLOCK));
    assert_eq!(entry_a.raw, global[..3 * BLOCK]);
    assert_eq!(reader.next().unwrap().unwrap().path, "b", "content that was not read is skipped");
    assert!(reader.next().unwrap().is_none());
    assert_eq!(reader.into_inner().len(), BLOCK, "the stream after the first empty block");
    let link = [special(b'K', b"a long target\0"), with(&[(156, b"2")])].concat();
    assert_eq!((first(&link).path.as_str(), first(&link).raw.len()), ("name", 3 * BLOCK));
}

#[test]
fn content_ends_with_its_entry() {
    let archive = [entry("a", b"one"), entry("b", b"two"), vec![0; 1024]].concat();
    let mut reader = Reader::new(archive.as_slice());
    reader.next().unwrap();
    let mut content = String::new();
    reader.read_to_string(&mut content).unwrap();
    assert_eq!(content, "one");
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    let mut truncated = Reader::new(&archive[..BLOCK + 1]);
    truncated.next().unwrap();
    assert!(truncated.read_to_string(&mut content).is_err());
    assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
}
