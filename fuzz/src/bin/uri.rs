//! URIs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(uri) = sip::Uri::parse(data) {
        assert_ne!(uri.port, Some(4711));
    }
});
