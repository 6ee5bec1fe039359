//! `inspect`: what it shows is what was done.

use serde_json::Value;

use super::{Running, addresses, bellhop, run, serve};

#[test]
fn an_inbox_is_shown_with_its_sockets_and_its_last_changes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let addresses = addresses();
    let _node = serve(folder, &addresses);
    let url = format!("http://{}", addresses[0]);
    let listener = Running::start(bellhop(folder, &["listen", "--user", "42", "--url", &url]));
    listener.line("notification:synced");
    for title in ["One", "Two", "Three"] {
        let send = ["send", "--user", "42", "--title", title, "--url", &url];
        let (code, _, error) = run(folder, &send);
        assert_eq!(code, 0, "{error}");
        listener.line("notification:new");
    }

    let inspect = ["inspect", "--user", "42", "--url", &url];
    let (code, output, error) = run(folder, &inspect);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    for says in [
        "user 42\n",
        "head 3",
        "unread 3",
        "sockets 1\n",
        "revoked: none",
    ] {
        assert!(output.contains(says), "{says}: {output}");
    }
    assert!(
        !output.contains("Three"),
        "what was written is nobody else's"
    );
    let rows: Vec<_> = output
        .lines()
        .skip_while(|line| !line.starts_with("SEQ"))
        .collect();
    assert_eq!(rows.len(), 4, "{output}");
    assert!(
        rows[1].starts_with("3 ") && rows[1].contains("new"),
        "{output}"
    );

    let (_, output, _) = run(
        folder,
        &[&inspect[..], &["--json", "--limit", "2"]].concat(),
    );
    let found: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        (&found["seq"], &found["presence"]["sockets"]),
        (&3.into(), &1.into())
    );
    assert_eq!(found["changes"].as_array().unwrap().len(), 2);

    let (code, output, _) = run(folder, &["inspect", "--user", "nobody", "--url", &url]);
    assert_eq!(code, 0);
    assert!(output.contains("nothing is kept"), "{output}");
}
