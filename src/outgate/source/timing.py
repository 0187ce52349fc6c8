"""
How patient the source is: every span of time it knows, in one value.

What it is: the defaults for a cluster, and the reasons for them.  Tests give others.
What it is not: settings for users; nobody has to know their API server that well.

A dead connection is noticed by the kernel (``client.DEAD_PEER_SECONDS``), a server
that hangs by asking it once more (*probe*), and a watch that hangs behind a living
proxy by being opened anew after a silence (*idle*).  The last cannot be short: a kind
that nobody changes gets no bookmarks from a real server, and each of thousands of
agents opens all its quiet watches that often.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """
    Spans in seconds.

    ======================  ========================================================
    *first_wait*            before the second try; doubled each time, with jitter
    *longest_wait*          between two tries
    *longest_retry_after*   what a server may ask for; more is taken for garbage
    *missing*               a kind must be missing this long before that is believed
    *missing_wait*          until a missing kind is asked for again
    *short_watch*           a watch that ends sooner, with no event, is a failure
    *confirm*               a list that lost most objects must repeat for this long
    *open_watch*            until a server has accepted a watch
    *list_limit*            until a list is whole, streamed or one page of it
    *stream_idle*           between two objects of a streamed list
    *watch_lifetime*        of one watch at least; at most twice that: the servers of
                            a large cluster shall not see all agents come back at once
    *idle*                  a watch without a line is opened anew, from where it was
    *probe*                 without a line of any kind, until the server is asked
                            whether it is still there
    ======================  ========================================================
    """

    first_wait: float = 0.2
    longest_wait: float = 30.0
    longest_retry_after: float = 120.0
    missing: float = 5.0
    missing_wait: float = 2.0
    short_watch: float = 1.0
    confirm: float = 30.0
    open_watch: float = 15.0
    list_limit: float = 300.0
    stream_idle: float = 15.0
    watch_lifetime: float = 240.0
    idle: float = 120.0
    probe: float = 30.0


DEFAULT_TIMING = Timing()
