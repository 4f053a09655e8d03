/* SPDX-License-Identifier: BSD-3-Clause */
/* Every named maximum, with its reason.  Whoever adds a queue, a frame, a retry or a string
 * adds its bound here.  Constants only; cores include it.
 */
#ifndef CRG_LIMITS_H
#define CRG_LIMITS_H

/* --- names and objects ------------------------------------------------------------------- */

/* Sets of nodes travel as 16-bit masks, and join orders stay testable. */
#define CRG_MAX_NODES 16
/* A site is one bit in the 'missing' set of a frame and one bitmap area at the end of each
 * store, reserved from the first day; eight areas cost 16 MiB for each TiB. */
#define CRG_MAX_SITES 8
/* The whole group state has to fit one atomic group message (see CRG_MAX_STATE_BYTES). */
#define CRG_MAX_CRGS  16
#define CRG_MAX_IASPS 8
/* Lineages (C9) before the present one that a state remembers. */
#define CRG_MAX_PAST 8
/* S1: nodes that were removed marked failed whose names a state remembers; as many as a domain has. */
#define CRG_MAX_GONE 16
/* Data addresses of one node: two networks of two paths. */
#define CRG_MAX_ADDRS 4
/* Names are DNS labels and parts of socket paths: a label has at most 63 bytes. */
#define CRG_NAME_MAX 63
/* "[IPv6%scope]:port" with room to spare. */
#define CRG_ADDR_MAX 63
/* A full DNS name without its root dot. */
#define CRG_HOST_MAX 253
/* Store, socket and certificate paths; fits a superblock and a JSON line. */
#define CRG_PATH_MAX 255
/* A Unix socket's path, without the NUL (sun_path has 108 bytes). */
#define CRG_SOCK_PATH_MAX 107
/* A reason shown to people: one line of text. */
#define CRG_REASON_MAX 255
/* Random ids (cluster, crg, iasp, store, lineage) and the kernel's boot id: 128 bits. */
#define CRG_ID_LEN 16
/* Hard time limit of one call of an agent of a [script], and the longest that may be asked for. */
#define AGENT_TIMEOUT_MS 20000
#define AGENT_TIMEOUT_MAX_MS 600000
/* A resource that runs is probed, and its configuration asked for, so often; a failed stop is
 * tried again after RETRY. */
#define AGENT_CHECK_MS 5000
#define AGENT_RETRY_MS 1000
/* What an agent says of its resource's configuration: a few settings, one message. */
#define CRG_CONFIG_MAX 1024
/* The group state, encoded: under the atomic message of every engine (corosync: 1,047,552). */
#define CRG_MAX_STATE_BYTES (512 * 1024)

/* --- mirror link ------------------------------------------------------------------------- */

/* One frame's payload.  Bounds the buffer that a peer can make us hold before its frame is
 * checked, and the time for which one large write delays the next PING. */
#define LINK_MAX_PAYLOAD (256 * 1024)
/* Data sent and not yet acknowledged on one link: 10 GbE x 12 ms, 1 GbE x 130 ms. */
#define LINK_WINDOW_BYTES (16 * 1024 * 1024)
/* Frames sent and not yet acknowledged: 64 workers x 4 MiB split into payloads fit twice. */
#define LINK_WINDOW_FRAMES 512
/* A copy answers in order; it batches, but never holds an answer for longer than this. */
#define LINK_ACK_DELAY_MS 2
/* HELLO, TLS handshake included, must be over by then, else the connection is dropped: a
 * peer that connects and says nothing must not hold the single link slot. */
#define LINK_HANDSHAKE_MS 5000
/* PING when nothing was heard for so long, and the link is dead when nothing was heard for
 * LINK_DEAD_MS. */
#define LINK_PING_MS 1000
#define LINK_DEAD_MS 5000
/* Reconnect delay: first and largest; it begins anew after a link that lasted so long. */
#define LINK_RETRY_MIN_MS 100
#define LINK_RETRY_MAX_MS 3000
#define LINK_STEADY_MS    1000
/* Connections on the mirror port that have not finished HELLO. */
#define LINK_MAX_PENDING 8
/* ... each of which has only so long when there are as many: ten round trips of any link that mirrors, and a crowd of
 * strangers that say nothing keeps production waiting for little more. */
#define LINK_CROWD_MS 1000
/* Connections that wait to be accepted, in the order in which they came: whoever finds no room here is asked by its
 * kernel to try again after 1, 3, 7 s. */
#define LINK_BACKLOG 128
/* The mirror port of a process that was killed is free when the kernel has ended its ring, some milliseconds after
 * the process itself, more on a busy machine: tried again every RETRY, for so long. */
#define LISTEN_RETRY_MS 10
#define LISTEN_WAIT_MS  1000

/* --- group engines ----------------------------------------------------------------------- */

/* One message of a group: twice CRG_MAX_STATE_BYTES, whatever else is in it. */
#define CRG_ENGINE_MSG_MAX (1024 * 1024)
/* Frames that an engine holds for one group while they can't be sent.  A view change makes all
 * of them void, so more would only be thrown away. */
#define CRG_ENGINE_QUEUE_MAX 1024

/* corosync */
/* Payload of one CPG message.  CPG takes 1,047,552 bytes at once, but then everything behind it
 * waits for a megabyte; totem cuts it into network frames of its own in any case. */
#define COROSYNC_PIECE (64u * 1024u)
/* What one group may hold that corosync doesn't take now: bytes beside CRG_ENGINE_QUEUE_MAX. */
#define COROSYNC_QUEUE_BYTES (8u * 1024u * 1024u)
/* Frames that corosync has taken and not yet given back to us.  Few, so that little of an old
 * view is still on its way when the next one begins; enough for 10 k/s at 3 ms. */
#define COROSYNC_WINDOW_FRAMES 64u
#define COROSYNC_WINDOW_BYTES  (1024u * 1024u)
/* Frames for each millisecond and in one go.  A stopped member's corosync keeps all of them:
 * the group's own chatter is a few frames a second, so this bounds an accident only. */
#define COROSYNC_RATE_FRAMES_MS 4u
#define COROSYNC_RATE_BURST     256u
/* Events taken from CPG before the loop's other work gets its turn. */
#define COROSYNC_DISPATCH_BATCH 64u
/* Longest pause between attempts while corosync says "try again". */
#define COROSYNC_RETRY_MAX_MS 20u
/* Reconnect to a corosync that is gone: first and longest interval. */
#define COROSYNC_RECONNECT_MIN_MS 100u
#define COROSYNC_RECONNECT_MAX_MS 2000u
/* votequorum reports a ring milliseconds after CPG; if it never does, connect anew. */
#define COROSYNC_QUORUM_WAIT_MS 5000u
/* Nodes in corosync.conf; more than CRG_MAX_NODES, as it may serve others too. */
#define COROSYNC_NODES_MAX 64
/* Prefix of our CPG groups: with '/' and CRG_NAME_MAX it fits CPG's 128 bytes. */
#define COROSYNC_PREFIX_MAX 32

/* --- NBD export -------------------------------------------------------------------------- */

/* Advertised maximum request; larger ones are split. */
#define NBD_MAX_REQUEST (4 * 1024 * 1024)
/* NBD's own maximum for zero, trim and extents: 32 bits. */
#define NBD_MAX_LENGTH 0xffffffffu
/* Sessions of following clients at one export, those included whose connections linger. */
#define SESSION_MAX 256
/* A new session waits so long in its handshake for the requests of the one before. */
#define SESSION_WAIT_MS 2000
/* Threads of nbdkit for each connection: so many of its requests can be under way. */
#define PLUGIN_THREADS     64
#define PLUGIN_THREADS_MAX 256
/* What nbdkit itself accepts as the payload of a read or write. */
#define NBD_MAX_BUFFER (64 * 1024 * 1024)

/* --- store and its metadata -------------------------------------------------------------- */

/* One metadata block: the sector size of every disk made lately, written atomically or found
 * torn by its CRC. */
#define META_BLOCK_SIZE 4096
/* One bit of a dirty bitmap.  Small blocks resend less, large ones need less memory. */
#define DIRTY_BLOCK_SIZE     (64 * 1024)
#define DIRTY_BLOCK_SIZE_MIN (4 * 1024)
#define DIRTY_BLOCK_SIZE_MAX (1024 * 1024)
/* The smallest hot region for which space is reserved; real ones may be larger. */
#define HOT_REGION_SIZE_MIN (1024 * 1024)
/* The largest: a resync after a crash copies whole regions. */
#define HOT_REGION_SIZE_MAX (64 * 1024 * 1024)
/* Regions of one store: 16 TiB at 4 MiB; the index of a map costs 2 bytes for each. */
#define HOT_MAX_REGIONS (4 * 1024 * 1024)
/* ... for production, which fewer hold: the target of a resync after a crash, in seconds, at the
 * rate of the last resync that took long enough to be measured; if none did, at this one.  A 1 GbE
 * link does it. */
#define HOT_RESYNC_BYTES_S (100 * 1024 * 1024)
/* A measured rate is taken for no less, so that a bad day does not make every write wait for a
 * mark, and for no more than any link has. */
#define HOT_RESYNC_BYTES_S_MIN (4 * 1024 * 1024)
#define HOT_RESYNC_BYTES_S_MAX (UINT64_C (8) * 1024 * 1024 * 1024)
/* Fewer would be full with two writes. */
#define HOT_MIN_ENTRIES 132
/* Regions that are hot at one time; bounds the resync after a crash, and fits 16 bits. */
#define HOT_MAX_ENTRIES 8192
/* Regions that are marked ahead of a sequential writer; half as many are left when the next go.  One
 * metadata flush for each 4 regions, or 16 where the bound leaves room. */
#define HOT_AHEAD     8
#define HOT_AHEAD_MAX 32
/* Largest store: byte offsets are signed 64 bit in the kernel; 1 EiB leaves room for sums. */
#define STORE_MAX_BYTES (UINT64_C (1) << 60)

/* --- JSON lines (control sockets) -------------------------------------------------------- */

/* One JSON object on one line, either way.  A full status of CRG_MAX_CRGS groups fits. */
#define JSONL_MAX_LINE (1024 * 1024)
/* Unsent output of one connection.  A reader that stops reading is cut off, not waited for. */
#define JSONL_MAX_OUT (4 * 1024 * 1024)
/* Deepest nesting of an object that a peer may send. */
#define JSONL_MAX_DEPTH 32
/* Connections not yet accepted. */
#define JSONL_BACKLOG 16

/* --- replication cores -------------------------------------------------------------------- */

/* Requests of clients that the replication core holds at once, whatever the number of nbdkit's
 * workers: further ones wait for a slot.  4 connections of 64. */
#define REPL_MAX_SLOTS 256
/* Resync blocks that are locked, read or waiting for the link; their buffers are allocated at
 * start (at DIRTY_BLOCK_SIZE 2 MiB in all). */
#define REPL_MAX_RSLOTS 32
/* Actions of one step; the rest comes with the next.  One request granted makes at most
 * 1 + CRG_MAX_SITES * 18. */
#define REPL_MAX_ACTIONS 512
/* Timeouts of the core are seen with this grain. */
#define REPL_TICK_MS 100
/* A copy may begin to enter the set (R3: writes wait for it) when it lacks no more blocks than
 * this: few enough to take well under a second. */
#define REPL_ENTER_BLOCKS 64
/* ... and is left outside again when a write waits for it so long before it is in the set. */
#define REPL_ENTER_STALL_MS 2000
/* ... doubled with each attempt, so often at most; the suspend timeout is the end of it. */
#define REPL_ENTER_TRIES_MAX 6
/* A copy outside the set that acknowledges nothing for the suspend timeout is cut off, and gets
 * twice as long with each attempt, so often at most: 10 s become 21 minutes for one frame. */
#define REPL_SLOW_MAX 7
/* Hot marks are cleared, after a flush of production's own, when no client has written for this
 * time ... */
#define REPL_HOT_IDLE_MS 2000
/* ... and a flush lets the copies clear theirs at least this often while clients write. */
#define REPL_HOT_FLUSH_MS 5000
/* The part of the time that a resync takes while clients work, in percent (G1).  With 4 KiB at random it
 * leaves their p99 as it is, within some percent (BENCHMARKING.md). */
#define RESYNC_SHARE 15
/* One piece of it: long enough to be worth its round trip, short for the request that meets it. */
#define REPL_PACE_BYTES (64 * 1024)
/* The longest rest between two (G2): 60 pieces a second at least, about 4 MiB, where store and link do it. */
#define REPL_PACE_REST_MS 16
/* So long a resync that doesn't gain on what clients write is left its share (G3). */
#define REPL_PACE_GAIN_MS 5000
/* Clients that have asked for nothing in so long don't work. */
#define REPL_QUIET_MS 1000
/* A resync block that the store could not read is tried again after this. */
#define REPL_READ_RETRY_MS 5000
/* One hole asked for at once: large enough to pass 1 TiB in 16 Ki steps, short enough for the
 * application not to notice its lock. */
#define REPL_HOLE_MAX (64 * 1024 * 1024)
/* Ranges sent to a copy outside the set and not yet confirmed stable, in each of two epochs;
 * when it is full, writes are marked dirty instead. */
#define TRACK_MAX_SENT 1024
/* A flush is asked of a copy being resynchronised after so many ranges, or so much time. */
#define REPL_FLUSH_RANGES 256
#define REPL_FLUSH_MS     500
/* ... or so many regions, and no further block goes before it is sent: what is not flushed is hot at
 * the copy.  Two epochs of it, the holes being read beside each, and all that production may have hot
 * (HOT_MAX_ENTRIES / 2) have to fit there, else the flush would wait for marks and the marks for it. */
#define REPL_FLUSH_REGIONS 512

/* Verify: blocks that are compared with one question, and bytes at most (a block may be 1 MiB). */
#define VERIFY_BLOCKS    16
#define VERIFY_RANGE_MAX (4 * 1024 * 1024)
/* Ranges whose digests are on their way: the next is read while one is answered. */
#define VERIFY_SLOTS 4
/* A range lock is given back after so long, whatever has been answered: a client's write may wait
 * for it.  It is taken so often for one block before the copy counts as too slow. */
#define VERIFY_LOCK_MS 1000
#define VERIFY_TRIES   10
/* Ranges that differ and are named, of each copy; the others are counted. */
#define VERIFY_MAX_FOUND 16
/* Questions of the resync for digests that are under way, to all copies together: enough that neither
 * side waits for the other. */
#define REPL_MAX_ASKS 8
/* One that is not answered in this time is given up, and its blocks are sent: reads may wait for them. */
#define REPL_ASK_MS 1000
/* Asking that finds less than a quarter equal is left for so many blocks, doubled each time up to the
 * second figure: where nothing is equal it costs one range in seventeen. */
#define REPL_ASK_PAUSE     16
#define REPL_ASK_PAUSE_MAX 256
/* Digests that a plugin makes at once, of its own ranges or for its production: those waited for, and
 * those that came too late under a lock, or for a question that was given up. */
#define DIGEST_MAX_JOBS (VERIFY_SLOTS + VERIFY_TRIES + 2 + 2 * REPL_MAX_ASKS)

/* Operations that a mirror copy holds: as many as it offers as its window. */
#define COPY_MAX_OPS LINK_WINDOW_FRAMES
/* Actions of one step of the copy's core; the rest comes with CE_POLL. */
#define COPY_MAX_ACTIONS 64
/* Operations done after which an ACK goes out without waiting for the end of the input. */
#define COPY_ACK_OPS 32

/* Ciphertext received and not yet read as plaintext: four full TLS records. */
#define TLSLINK_IN_BYTES (68 * 1024)
/* Smallest ring for ciphertext to send that a handshake and a few records fit. */
#define TLSLINK_OUT_LEAST (64 * 1024)
/* ... of a mirror link: two frames of LINK_MAX_PAYLOAD with TLS's overhead. */
#define TLSLINK_OUT_MIN (576 * 1024)

/* --- configuration files ----------------------------------------------------------------- */

/* One line of a configuration file: a key and four addresses, or a key and a path. */
#define CONF_MAX_LINE 1023
/* Lines with content in one file: 16 nodes of 7, 8 IASPs of 29 (a store for each node and site). */
#define CONF_MAX_ENTRIES 512
/* A configuration file: CONF_MAX_ENTRIES lines with as much comment again. */
#define CONF_MAX_FILE (256 * 1024)
/* An error or a warning about a configuration: a path, a value and what is allowed. */
#define CONF_ERR_MAX 1023
/* A node's id; fits 16 bits, 0 is no node. */
#define CONF_MAX_NODE_ID 65535
/* Votes of one node; state.h keeps them in 8 bits, and nobody needs as many. */
#define CONF_MAX_VOTES 100
/* Any timeout of a CRG: a day. */
#define CONF_MAX_TIMEOUT_MS 86400000
/* Mirror port of a CRG's first IASP, if the definition gives none; the next one is one higher. */
#define CONF_MIRROR_PORT 10810
/* --- group engine and hub ------------------------------------------------------------------ */

/* Longest lease of a production host (L1), and longest time for which one that was granted holds others back (L3). */
#define LEASE_MAX_MS      300000
#define LEASE_HOLD_MAX_MS (2 * LEASE_MAX_MS)
/* Unsent bytes of one connection between hub and node: sixteen of the largest messages, and hours
 * of heartbeats.  A node that lets more pile up does not read, and counts as dead. */
#define HUB_OUT_MAX (16 * 1024 * 1024)
/* One connection a node. */
#define HUB_MAX_MEMBERS CRG_MAX_NODES
/* A node that keeps out of a group, for its state file can't be written (C6) or it could not join, tries again
 * after this.  Nobody notices a try in vain. */
#define MEMBER_REJOIN_MS 1000
/* Of one crgd: a group for each CRG, one for the cluster, and as many that are being left, for who was
 * expelled joins again at once. */
#define ENGINE_MAX_GROUPS (2 * CRG_MAX_CRGS + 1)
#define HUB_MAX_GROUPS    ENGINE_MAX_GROUPS
/* Silence is counted in PINGs: four unanswered ones in a token time. */
#define HUB_PINGS_PER_TOKEN 4
#define HUB_TICK_MS         10
/* Below this a busy machine makes false deaths; above it no lease is of use. */
#define HUB_TOKEN_MIN_MS 100
#define HUB_TOKEN_MAX_MS 60000
/* A connection that says nothing holds a slot for so long. */
#define HUB_HELLO_MS 5000
/* Reconnect delay to the hub: first and largest.  A hub's restart holds I/O meanwhile. */
#define ENGINE_RETRY_MIN_MS 20
#define ENGINE_RETRY_MAX_MS 200
/* A hub that has just started makes no view before this: when it comes back, all nodes shall be in
 * the first one, or the group would take those that are a moment late for dead. */
#define HUB_SETTLE_MS 500

/* --- the daemon ------------------------------------------------------------------------------ */

/* Connections on the admin socket: operators, scripts and --watch; one slot less than a small
 * machine's descriptors by far. */
#define ADMIN_MAX_CLIENTS 64
/* Longest time for which an admin request waits for the group, unless it says less. */
#define ADMIN_REQUEST_MS 120000
/* The group core says itself what it could not do in time, and for what it waited; this much later crgd does. */
#define REQUEST_ANSWER_MS 1000
/* A switchover's answer waits at most so long for the new export to be seen by a client. */
#define ADMIN_AWAIT_MS      5000
#define ADMIN_AWAIT_TICK_MS 20
/* Requests to one plugin that wait for their answer. */
#define PLUGIN_MAX_CALLS 32
/* Events of a plugin that wait until its role is reported: a few for each site. */
#define PLUGIN_EARLY_EVENTS 32
/* A plugin opens its control socket within this time after its start, or is started again. */
#define PLUGIN_START_MS 10000
/* Whose process a pid file names is looked at so often, so far apart, when that can't be said yet: between fork and
 * execve lie a few system calls. */
#define PROCESS_LOOKS   10
#define PROCESS_LOOK_MS 10
/* Answer to `role`: opening a store and writing its superblock twice, on a slow disk. */
#define PLUGIN_ROLE_MS 15000
/* Unanswered `status` in a row, PLUGIN_ROLE_MS each, after which a process hangs for good: it is
 * killed, which is safe at any instruction, and started again. */
#define PLUGIN_HUNG_POLLS 2
/* Control connections in a row that break before `status` is answered, after which it is ended. */
#define PLUGIN_MAX_ASKS 3
/* Graceful end: `quit` may drain and flush for so long, then SIGTERM, then SIGKILL. */
#define PLUGIN_QUIT_MS 5000
#define PLUGIN_TERM_MS 200
/* ... and for so long if another host has been appointed meanwhile. */
#define PLUGIN_QUIT_OLD_MS 1000
/* A process that SIGKILL has not ended by then waits in the kernel, for its store: nobody can say for how long. */
#define PLUGIN_KILL_MS 5000
/* When crgd ends, its mirror copies end so much later than production: if the whole cluster is
 * stopped at once, production can still drain and flush to them, and all close cleanly. */
#define STOP_MIRROR_MS 1000
/* crgd --hand-over waits so long for each switchover, then ends its plugins all the same. */
#define STOP_HAND_OVER_MS 20000
/* Delay before a plugin that died is started again: at once, then doubling up to this. */
#define PLUGIN_RETRY_MIN_MS 100
#define PLUGIN_RETRY_MAX_MS 5000
/* Deaths without a success in between after which the node gives the role up. */
#define PLUGIN_MAX_DEATHS 5
/* `status` of each plugin, and the report to the other nodes; shown with its age. */
#define PLUGIN_POLL_MS 1000
/* A store's probe, an export's check: a hung disk is told from a slow one by then. */
#define PROBE_MS        8000
/* A store locked by a process of a node that is gone: SIGKILL takes a moment to end nbdkit's
 * threads.  Less than 2 x token of every engine, so that nobody decides without the answer. */
#define PROBE_DYING_MS 300
#define PROBE_LOOK_MS  50
#define EXPORT_CHECK_MS 10000
#define EXPORT_RETRY_MS 200
/* create: all named nodes have looked at their stores, or have formatted them. */
#define CREATE_STEP_MS 10000
/* The clients' query (query.h).  A request names an IASP, an answer where it is: short lines. */
#define QUERY_MAX_LINE 2048
/* The port that clients ask by default; NBD's own is 10809, those of mirror links follow. */
#define QUERY_PORT 10808
/* Connections to it.  Each costs some 200 KiB; when all are taken the oldest idle one goes. */
#define QUERY_MAX_CLIENTS 32
/* Connections taken a second, and at once after a pause.  A TLS handshake costs crgd's only thread
 * half a millisecond: strangers get 2 % of it at most, and the lease is safe. */
#define QUERY_RATE_S 50
#define QUERY_BURST  32
/* Requests that one connection may send a second; more are answered later. */
#define QUERY_CLIENT_RATE_S 20
/* Handshake and first request have to come within this. */
#define QUERY_HANDSHAKE_MS 5000
/* A connection that asks nothing for so long is closed. */
#define QUERY_IDLE_MS 60000
/* Its address may come later than crgd. */
#define QUERY_LISTEN_RETRY_MS 2000
/* A hook's or an agent's standard output that is kept: a configuration; and the lines of its
 * standard error that are logged, so that one script can't drown the log. */
#define SCRIPT_OUT_MAX   4096
#define SCRIPT_LOG_LINES 20
/* Reads of a script's pipe in one go, 4 KiB each. */
#define SCRIPT_READS 16
/* Events of one CRG that wait for its hooks; the oldest is dropped for a newer one. */
#define HOOK_QUEUE_MAX 32
/* Hooks in hooks.d. */
#define HOOK_MAX_SCRIPTS 32
/* CRGs whose hooks run at the same time, one script each. */
#define HOOK_MAX_RUNNING 4
/* snapshot-hook: what takes longer is killed.  What failed, also a reflink, is tried again after RETRY. */
#define SNAPSHOT_TIMEOUT_MS 60000
#define SNAPSHOT_RETRY_MS 5000
/* A change of who is there is an event when it has lasted so long: a crgd that restarts is none. */
#define HOOK_SETTLE_MS 3000
/* An ending crgd waits so long for the hooks of what it ended. */
#define HOOK_STOP_MS 5000
/* The plugin `crg` */
/* Connections to production: more only help where one processor's TLS is the bound. */
#define CLIENT_MAX_CONNECTIONS 16
#define CLIENT_CONNECTIONS     4
/* Answered and unflushed writes that it keeps, for the case that they are lost: their bytes, by
 * default and at most, and their number. */
#define CLIENT_KEEP_BYTES     (32 * 1024 * 1024)
#define CLIENT_KEEP_BYTES_MAX (1024 * 1024 * 1024)
#define CLIENT_KEEP_WRITES    (64 * 1024)
/* Nodes are asked for so long; when one has answered that it doesn't know, those that aren't
 * connected yet have so much more to be so: a round trip of 250 ms, and a bit. */
#define CLIENT_ASK_MS      1500
#define CLIENT_ASK_MORE_MS 300
/* So often it is looked whether an address has been found; libc tells a thread only. */
#define CLIENT_LOOKUP_MS 20
/* Connecting, with TLS and the export's wait for an older session's requests. */
#define CLIENT_CONNECT_MS 5000
/* Pause between attempts: first and longest. */
#define CLIENT_RETRY_MIN_MS 20
#define CLIENT_RETRY_MAX_MS 500
/* Requests under way and no answer at all: the nodes are asked whether production has moved. */
#define CLIENT_STUCK_MS 1000
#define CLIENT_LOOK_MS  250
/* A peer that confirms nothing for so long is dead (TCP_USER_TIMEOUT, keep-alive). */
#define CLIENT_DEAD_MS 5000
/* Who asks for its status and doesn't read it keeps others waiting for so long. */
#define CLIENT_STATUS_MS 1000
/* A kept write has this time to be written again. */
#define CLIENT_REWRITE_MS 30000
/* A client has left and its request has no answer: the session is given up for it. */
#define CLIENT_LEFT_MS 5000
/* So often a request that waits looks whether that is so, or its time is over. */
#define CLIENT_LEFT_LOOK_MS 500
/* crgctl attach */
/* The kernel sends a request that has no answer again after this; its way to find what was under
 * way on a connection that died.  So long a restart of the proxy takes at least. */
#define ATTACH_TIMEOUT_S 5
/* With neither proxy nor keeper the device's requests wait so long, and then fail: a week. */
#define ATTACH_DEAD_CONN_S (7 * 86400)
/* Pause between attempts to replace a connection. */
#define ATTACH_RETRY_MS 300
/* A proxy that doesn't tell its status for so long hangs, and is started again. */
#define ATTACH_HUNG_MS 15000
/* So often it is asked for that. */
#define ATTACH_CHECK_MS 1000
/* detach waits so long for the keeper's end. */
#define ATTACH_END_MS 20000
/* Recent events of a CRG kept for `trace`. */
#define TRACE_EVENTS 256

#endif /* CRG_LIMITS_H */
