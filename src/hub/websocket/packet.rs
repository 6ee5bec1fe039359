//! What the messages of a connection say: Socket.IO packets (protocol 5) in Engine.IO packets (protocol 4), as text.

use std::borrow::Cow;

use serde_json::{Value, json};

/// A name that a client made up is not longer than this; it is sent back to it.
const NAMESPACE: usize = 128;

/// A packet of a client for the one namespace that there is.
#[derive(Debug, PartialEq)]
pub enum Packet {
    /// With what the client brings; null if that is nothing, or no JSON.
    Connect(Value),
    /// The first of its arguments; null if there is none. `ack` numbers the answer, if one is wanted.
    Event {
        name: String,
        data: Value,
        ack: Option<u64>,
    },
    Disconnect,
}

/// What a message is.
#[derive(Debug, PartialEq)]
pub(super) enum Heard<'a> {
    Packet(Packet),
    /// The answer to a ping.
    Pong,
    /// The end of the session.
    Close,
    /// A CONNECT to a namespace that there is not.
    Stranger(&'a str),
    /// Of no use here, and no offence: an ack that nobody asked for, or what is for another namespace.
    Nothing,
}

/// It is no packet, or none that a client may send.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed;

/// Reads an Engine.IO packet.
pub(super) fn read(message: &str) -> Result<Heard<'_>, Malformed> {
    match message.split_at_checked(1).ok_or(Malformed)? {
        ("4", packet) => read_packet(packet),
        // Clients of the protocol before this one are the ones that ping.
        ("2" | "3", "") => Ok(Heard::Pong),
        ("1", _) => Ok(Heard::Close),
        _ => Err(Malformed),
    }
}

/// Reads a Socket.IO packet: a digit, the namespace if it is not `/`, the number of an ack, and JSON.
fn read_packet(packet: &str) -> Result<Heard<'_>, Malformed> {
    let (kind, rest) = packet.split_at_checked(1).ok_or(Malformed)?;
    let (namespace, rest) = if rest.starts_with('/') {
        rest.split_once(',').unwrap_or((rest, ""))
    } else {
        ("/", rest)
    };
    if namespace.len() > NAMESPACE {
        return Err(Malformed);
    }
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (ack, json) = rest.split_at(digits);
    Ok(match (kind, namespace) {
        ("0", "/") => Heard::Packet(Packet::Connect(
            serde_json::from_str(json).unwrap_or_default(),
        )),
        ("0", stranger) => Heard::Stranger(stranger),
        ("1", "/") => Heard::Packet(Packet::Disconnect),
        ("2", "/") => {
            let mut items = serde_json::from_str::<Vec<Value>>(json)
                .unwrap_or_default()
                .into_iter();
            let Some(Value::String(name)) = items.next() else {
                return Err(Malformed);
            };
            Heard::Packet(Packet::Event {
                name,
                data: items.next().unwrap_or_default(),
                ack: ack.parse().ok(),
            })
        }
        ("1" | "2" | "3", _) => Heard::Nothing,
        // Binary packets announce attachments, which nothing here has a use for.
        _ => return Err(Malformed),
    })
}

/// The first packet of a session: what the client has to know of it.
pub(super) fn open(session: &str, ping_interval: u128, ping_timeout: u128, limit: usize) -> String {
    let open = json!({
        "sid": session,
        "upgrades": [],
        "pingInterval": u64::try_from(ping_interval).unwrap_or(u64::MAX),
        "pingTimeout": u64::try_from(ping_timeout).unwrap_or(u64::MAX),
        "maxPayload": limit,
    });
    format!("0{open}")
}

pub(super) const PING: &str = "2";

pub(super) fn connected(socket: &str) -> String {
    format!("40{}", json!({ "sid": socket }))
}

/// Why a CONNECT is refused; `namespace`: not the one that there is.
pub(super) fn refused(namespace: Option<&str>, message: &str) -> String {
    let namespace = namespace.map_or(Cow::Borrowed(""), |name| format!("{name},").into());
    format!("44{namespace}{}", json!({ "message": message }))
}

pub(super) fn ack(number: u64, answer: &Value) -> String {
    format!("43{number}[{answer}]")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(name: &str, data: Value, ack: Option<u64>) -> Heard<'static> {
        Heard::Packet(Packet::Event {
            name: name.to_owned(),
            data,
            ack,
        })
    }

    #[test]
    fn packets_of_clients_are_read() {
        let connect = |auth| Heard::Packet(Packet::Connect(auth));
        for (message, heard) in [
            ("3", Heard::Pong),
            ("1", Heard::Close),
            ("40", connect(Value::Null)),
            (r#"40{"token":"t"}"#, connect(json!({ "token": "t" }))),
            (r#"40/,{"token":"t"}"#, connect(json!({ "token": "t" }))),
            ("40{no json", connect(Value::Null)),
            ("40/other", Heard::Stranger("/other")),
            ("40/other,{}", Heard::Stranger("/other")),
            ("41", Heard::Packet(Packet::Disconnect)),
            ("41/other,", Heard::Nothing),
            (r#"42["a"]"#, event("a", Value::Null, None)),
            (
                r#"427["a",{"b":1},2]"#,
                event("a", json!({ "b": 1 }), Some(7)),
            ),
            (r#"42/,7["a"]"#, event("a", Value::Null, Some(7))),
            (r#"42/other,["a"]"#, Heard::Nothing),
            (
                r#"4299999999999999999999["a"]"#,
                event("a", Value::Null, None),
            ),
            ("430[]", Heard::Nothing),
        ] {
            assert_eq!(read(message), Ok(heard), "{message}");
        }
    }

    #[test]
    fn what_no_client_sends_is_malformed() {
        let long = format!("40/{}", "n".repeat(NAMESPACE));
        for message in [
            "",
            "0",
            "2probe",
            "5",
            "6",
            "7",
            "é",
            "4",
            "4é",
            "44{}",
            "47",
            "42",
            "42[]",
            "42[1]",
            "42{}",
            r#"42["a"#,
            r#"451-["a",{"_placeholder":true,"num":0}]"#,
            "461-1[]",
            &long,
        ] {
            assert_eq!(read(message), Err(Malformed), "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9]{0,3}(/[a-zé,]{0,4})?[0-9]{0,3}\\PC{0,12}") {
            let _any = read(&text);
        }
    }

    #[test]
    fn what_is_sent_is_as_clients_read_it() {
        let open = open("s", 25_000, 20_000, 100);
        let told: Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(told["pingInterval"], 25_000);
        assert_eq!((&told["sid"], &told["upgrades"]), (&json!("s"), &json!([])));
        assert_eq!(connected("s"), r#"40{"sid":"s"}"#);
        assert_eq!(refused(None, "no"), r#"44{"message":"no"}"#);
        assert_eq!(refused(Some("/n"), "no"), r#"44/n,{"message":"no"}"#);
        assert_eq!(ack(7, &json!({ "ok": true })), r#"437[{"ok":true}]"#);
    }
}
