//! The watchdog is shown that the page turns, by the page itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A page whose loops count their turns, and the count.
fn counted(listen: &str, now: Arc<dyn Fn() -> Stamp + Send + Sync>) -> (Arc<App>, Arc<AtomicUsize>, TempDir) {
    let state = TempDir::new().expect("folder");
    let board = Board::default();
    let opened = Spool::open(SpoolSettings::new(state.path()), board.clone(), stamp).expect("spool");
    let beats = Arc::new(AtomicUsize::new(0));
    let seen = beats.clone();
    let watch = move |_: &str| {
        let seen = seen.clone();
        Box::new(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        }) as Beat
    };
    let sources =
        Sources { watch: Arc::new(watch), ..sources(&Live::new(), &board, opened.spool, now, &state) };
    let config =
        PageConfig { listen: vec![listen.parse().expect("address")], names: Vec::new(), certificate: None };
    (app(config, sources, CancellationToken::new()), beats, state)
}

#[tokio::test(start_paused = true)]
async fn an_idle_page_beats_and_one_that_hangs_alone_does_not() {
    let (app, beats, _state) = counted("127.0.0.1:0", Arc::new(stamp));
    let (address, router) = (app.config.listen[0], routes::router(&app));
    let (announce, _addresses) = watch::channel(Vec::new());
    let mut listening = std::pin::pin!(server::listen(app, address, router, announce));
    assert!(timeout(Duration::from_secs(60), &mut listening).await.is_err());
    let before = beats.load(Ordering::Relaxed);
    assert!(before >= 6, "{before}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(beats.load(Ordering::Relaxed), before, "only the loop itself beats");
}

#[tokio::test]
async fn a_certificate_that_takes_long_to_make_holds_up_nothing() {
    // The clock is asked for the certificate's validity: it answers when it is told to.
    let (answer, asked) = std::sync::mpsc::sync_channel::<()>(1);
    let asked = std::sync::Mutex::new(asked);
    let now = move || {
        let _ = lock(&asked).recv();
        stamp()
    };
    let (app, _beats, _state) = counted("0.0.0.0:0", Arc::new(now));
    let (announce, mut addresses) = watch::channel(Vec::new());
    let page = tokio::spawn(server::run(app, announce));
    // This runtime has one thread: a timer on it runs although the certificate is not there.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(addresses.borrow_and_update().is_empty());
    answer.send(()).expect("asked");
    drop(answer);
    timeout(SOON, addresses.wait_for(|all| !all.is_empty())).await.expect("in time").expect("listening");
    page.abort();
}
