//! Documents made to be expensive.

use model::limits::TOPOLOGY_BYTES_MAX;
use topology::{Rule, Topology, decode, lint};

const HEAD: &str = "version = 1\ndeployment = \"x\"\n";

/// `start`, as many items as fit the limit, and `end`.
fn filled(start: &str, item: impl Fn(usize) -> String, end: &str) -> String {
    let mut text = start.to_owned();
    for number in 0.. {
        let item = item(number);
        if text.len() + item.len() + end.len() > TOPOLOGY_BYTES_MAX {
            break;
        }
        text.push_str(&item);
    }
    text + end
}

#[test]
fn a_document_over_the_limit_is_refused_unread() {
    let text = " ".repeat(TOPOLOGY_BYTES_MAX + 1);

    let findings = lint(&text);

    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].rule, Rule::DocumentSize.name());
    assert_eq!(Topology::read(&text), Err(findings));
}

#[test]
fn the_largest_documents_are_judged_without_quadratic_work() {
    let site = |n| {
        format!("[[site]]\nname = \"s{n}\"\n[[pool]]\nname = \"p{n}\"\nsite = \"s{n}\"\nrole = \"edge\"\n")
    };
    let server =
        |n| format!("[[server]]\nname = \"s\"\nfqdn = \"s.example.com\"\nudp = [\"192.0.2.1:{n}\"]\n");
    let digest = "[[pool]]\nname = \"p\"\nrole = \"front_end\"\n[pool.settings]\ndigest_algorithms = [";
    let hostile = [
        ("reference-resolves", filled(HEAD, |n| format!("[[pair]]\npools = [\"a{n}\", \"b{n}\"]\n"), "")),
        ("central-site-front-end", filled(HEAD, site, "")),
        ("unknown-key", filled(HEAD, |n| format!("key{n} = 1\n"), "")),
        ("name-unique", filled(HEAD, server, "")),
        ("fqdn-valid", filled("domains = [", |n| format!("\"d{n}\","), "]")),
        ("digest-algorithms", filled(digest, |_| "\"MD5\",".to_owned(), "]")),
        ("syntax", filled("x = ", |_| "[".to_owned(), "")),
        ("syntax", filled("", |_| "[[".to_owned(), "")),
        ("syntax", filled("x = ", |_| "{a=".to_owned(), "")),
        ("syntax", filled("x", |_| ".x".to_owned(), " = 1")),
    ];
    for (rule, text) in hostile {
        let findings = lint(&text);

        let start = text.get(..100).unwrap_or(&text);
        assert!(findings.iter().any(|finding| finding.rule == rule), "{rule}: {start}");
    }
}

#[test]
fn a_file_in_another_encoding_is_a_finding_with_its_place() {
    let finding = decode(b"version = 1\n# Z\xfcrich\n").unwrap_err();

    assert_eq!((finding.rule, finding.at.map(|at| (at.line, at.column))), ("syntax", Some((2, 4))));
    assert_eq!(decode("# Zürich".as_bytes()), Ok("# Zürich"));
}
