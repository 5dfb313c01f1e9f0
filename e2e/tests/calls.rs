//! Phones register, call and message.

use std::time::Duration;

use e2e::{Answer, Deployment, Manners, Phone, Registration, Timing, Via};

const PATIENCE: Duration = Duration::from_secs(8);

fn question() -> Registration {
    Registration { contacts: Vec::new(), expires: None, cseq: None }
}

fn contacts(answer: &Answer) -> Vec<String> {
    answer.message.values("Contact")
}

#[test]
fn a_phone_registers_refreshes_asks_and_unregisters() {
    let deployment = Deployment::running(Timing::DEFAULT).unwrap();
    for (via, user) in [(Via::Udp, "1003"), (Via::Tcp, "1004"), (Via::Tls, "1005"), (Via::Udp, "1001")] {
        let phone = Phone::new(&deployment, user, via, "east1", "127.0.0.1").unwrap();

        let new = phone.register(300).unwrap();
        assert_eq!(new.status, 200, "{:?}", new.message);
        assert_eq!(new.challenges, 1);
        assert_eq!(new.mode().as_deref(), Some("full"));
        assert_eq!(contacts(&new).len(), 1);
        assert!(contacts(&new)[0].contains(&phone.contact()), "{:?}", new.message);
        assert!(contacts(&new)[0].contains("expires=300"), "{:?}", new.message);

        let refreshed = phone.register(200).unwrap();
        assert_eq!((refreshed.status, refreshed.challenges), (200, 0));
        assert!(contacts(&refreshed)[0].contains("expires=200"));

        let asked = phone.register_with(&question(), PATIENCE).unwrap();
        assert_eq!((asked.status, contacts(&asked).len()), (200, 1));

        let registered = deployment.registrations(user).unwrap();
        assert_eq!(registered, [("east1".to_owned(), phone.contact())]);

        let removed = phone.register(0).unwrap();
        assert_eq!((removed.status, contacts(&removed).len()), (200, 0));
        assert!(deployment.registrations(user).unwrap().is_empty());
        println!("{via:?} {user}: new, refresh, query, unregister: 200");
    }
}
