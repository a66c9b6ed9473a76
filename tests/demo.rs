//! The demo is the first thing that a newcomer runs: it has to come true, and to notice when it does not.

use strowger::io::demo::{Options, Sabotage, run};

#[test]
fn every_scene_does_what_it_says_and_a_crossed_call_is_noticed() {
    let mut out = Vec::new();
    let well = run(Options { once: true, ladder: true, ..Options::default() }, &mut out, false).unwrap();
    let text = String::from_utf8(out).unwrap();
    println!("{text}");
    assert!(well, "{text}");
    let mut out = Vec::new();
    let options = Options { once: true, json: true, sabotage: Some(Sabotage::Tone), ..Options::default() };
    assert!(!run(options, &mut out, false).unwrap());
    let scenes: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wrong: Vec<_> = scenes.iter().filter(|s| s["ok"] == false).map(|s| s["scene"].as_str().unwrap()).collect();
    assert_eq!(wrong, ["sales"]);
}
