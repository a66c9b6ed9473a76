//! A hook against a real HTTP server on loopback that behaves, hangs, lies and dies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use axum::Router;
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::post;

use super::*;
use crate::base::Wall;

struct Lab {
    runtime: tokio::runtime::Runtime,
    hooks: Hooks,
    server: SocketAddr,
    asked: Arc<AtomicUsize>,
}

fn lab() -> Lab {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let router =
        Router::new()
            .route(
                "/route",
                post(move |body: String| {
                    count.fetch_add(1, Ordering::SeqCst);
                    async move {
                        if body.contains("+79130000000") { "" } else { r#"{"to":["extension:121"]}"# }.into_response()
                    }
                }),
            )
            .route("/never", post(std::future::pending::<()>))
            .route("/lost", post(|| async { axum::http::StatusCode::NOT_FOUND }))
            .route("/fault", post(|| async { axum::http::StatusCode::INTERNAL_SERVER_ERROR }))
            .route("/long", post(|| async { "x".repeat(MAX_ANSWER + 1) }))
            .route("/elsewhere", post(|| async { Redirect::temporary("/route") }));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("loopback");
    let server = listener.local_addr().expect("bound");
    runtime.spawn(async move { axum::serve(listener, router).await });
    let hooks = Hooks::new(runtime.handle().clone(), Clock::new());
    Lab { runtime, hooks, server, asked }
}

impl Lab {
    fn hook(&self, path: &str) -> Hook {
        Hook { timeout: Duration::from_secs(5), ..Hook::new(path, &format!("http://{}{path}", self.server)) }
    }

    fn ask(&self, hook: &Hook) -> Outcome {
        let (tell, told) = mpsc::channel();
        self.hooks.ask(hook, &question("+79131234567"), move |outcome| drop(tell.send(outcome)));
        told.recv_timeout(Duration::from_secs(10)).expect("it always answers")
    }
}

fn question(caller: &str) -> Question {
    Question {
        call: "01J".to_owned(),
        caller: Some(caller.to_owned()),
        called: "+73833000001".to_owned(),
        campaign: None,
        category: None,
        region: None,
        anonymous: false,
        at: Wall::default(),
    }
}

fn why(outcome: Outcome) -> String {
    outcome.map(|_| String::new()).expect_err("it must have failed")
}

#[test]
fn an_answer_comes_back() {
    let lab = lab();
    let answer = lab.ask(&lab.hook("/route")).expect("it answers").expect("with steps");
    assert_eq!(answer.to.iter().map(|s| s.target.to_string()).collect::<Vec<_>>(), ["extension:121"]);
}

#[test]
fn what_goes_wrong_is_said_in_words() {
    let lab = lab();
    let slow = Hook { timeout: Duration::from_millis(50), ..lab.hook("/never") };
    assert_eq!(why(lab.ask(&slow)), "no answer within 50 ms");
    assert_eq!(why(lab.ask(&lab.hook("/fault"))), "it answered 500");
    assert_eq!(why(lab.ask(&lab.hook("/elsewhere"))), "it answered 307");
    assert_eq!(why(lab.ask(&lab.hook("/long"))), "its answer is longer than 64 KiB");
    assert_eq!(lab.asked.load(Ordering::SeqCst), 0, "a redirection is not followed");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let dead = Hook::new("dead", &format!("http://{nobody}/route"));
    assert!(why(lab.ask(&dead)).starts_with("cannot connect: Connection refused"));
    for metadata in ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"] {
        let told = why(lab.ask(&Hook::new("metadata", metadata)));
        assert!(told.ends_with("is link-local: not connected to"), "{metadata}: {told}");
    }
}

#[test]
fn a_hook_that_fails_is_left_alone() {
    let lab = lab();
    let hook = lab.hook("/fault");
    for _ in 0..breaker::FAILURES {
        assert_eq!(why(lab.ask(&hook)), "it answered 500");
    }
    assert_eq!(why(lab.ask(&hook)), "it failed 5 times in a row: left alone for 10 s more");
    assert!(lab.ask(&lab.hook("/route")).is_ok(), "others are not touched");
}

#[test]
fn what_it_makes_of_one_caller_is_no_fault_of_the_hook() {
    let lab = lab();
    let hook = lab.hook("/lost");
    for _ in 0..3 * breaker::FAILURES {
        assert_eq!(why(lab.ask(&hook)), "it answered 404");
    }
}

#[test]
fn so_many_at_once_and_no_more() {
    let lab = lab();
    let hook = Hook { concurrent: 2, ..lab.hook("/never") };
    for _ in 0..2 {
        lab.hooks.ask(&hook, &question("+79131234567"), |_| ());
    }
    assert_eq!(why(lab.ask(&hook)), "2 questions to it are under way already");
    lab.runtime.shutdown_background();
}

#[test]
fn answers_are_remembered_if_asked() {
    let lab = lab();
    let hook = Hook { cache: Duration::from_secs(60), ..lab.hook("/route") };
    for _ in 0..3 {
        assert!(lab.ask(&hook).is_ok());
    }
    assert_eq!(lab.asked.load(Ordering::SeqCst), 1);
    assert!(lab.ask(&lab.hook("/route")).is_ok());
    assert_eq!(lab.asked.load(Ordering::SeqCst), 2, "only where the hook says so");
}
