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
/* Reconnect delay: first and largest. */
#define LINK_RETRY_MIN_MS 100
#define LINK_RETRY_MAX_MS 3000
/* Connections on the mirror port that have not finished HELLO. */
#define LINK_MAX_PENDING 8

/* --- NBD export -------------------------------------------------------------------------- */

/* Advertised maximum request; larger ones are split. */
#define NBD_MAX_REQUEST (4 * 1024 * 1024)
/* NBD's own maximum for zero, trim and extents: 32 bits. */
#define NBD_MAX_LENGTH 0xffffffffu
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

#endif /* CRG_LIMITS_H */
