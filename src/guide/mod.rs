#![doc = include_str!("links.md")]
#![doc = include_str!("README.md")]

/// A page is a file that can also be read where it lies: its links lead to files. The documentation has no such files, so
/// `links.md`, which comes first and therefore counts, says where each link leads there.
macro_rules! pages {
    ($($page:ident)*) => {$(
        #[doc = include_str!("links.md")]
        #[doc = include_str!(concat!(stringify!($page), ".md"))]
        pub mod $page {}
    )*};
}

pages! {
    ch1_blocked_thread
    ch2_readiness_completion
    ch3_level_edge_oneshot
    ch4_life
    ch4b_lending
    ch5_closed_descriptor
    ch6_wakeups_threads
    ch7_hints_timeouts
    ch8_confusions
    ch9_four_answers
    ch10_writing
    ch11_connecting
    ch12_listeners
    promises
    experiments
    exercises
    book
    how_we_know
    errata
}
