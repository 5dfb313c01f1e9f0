//! End-to-end tests with real processes, phones and faults.
