/* SPDX-License-Identifier: BSD-3-Clause */
/* The receiving core, one event at a time: who is let in, what is submitted when, what is
 * acknowledged when, and how a link ends. */
#include <errno.h>
#include <string.h>

#include "plugin/copy_private.h"
#include "tests/tap.h"

static struct copy c;
static struct copy_config cfg;
static struct wire_hello hello;
static struct copy_actions out;
static const struct copy_action nothing;

static void
step (struct copy_event ev)
{
  copy_step (&c, &ev, &out);
}

static void
start (void)
{
  memset (&cfg, 0, sizeof cfg);
  memset (cfg.cluster_id, 1, CRG_ID_LEN);
  memset (cfg.crg_id, 2, CRG_ID_LEN);
  memset (cfg.iasp_id, 3, CRG_ID_LEN);
  memset (cfg.lineage, 4, CRG_ID_LEN);
  strcpy (cfg.node, "c1");
  cfg.site = 1;
  cfg.size = 1 << 20;
  cfg.block_size = 512;
  cfg.dirty_block_size = 65536;
  cfg.tenure = 5;
  cfg.generation = 3;
  cfg.since = 2;
  cfg.window_bytes = 4 << 20;
  cfg.window_frames = 64;
  memset (&hello, 0, sizeof hello);
  hello.proto_min = hello.proto_max = 1;
  memcpy (hello.cluster_id, cfg.cluster_id, CRG_ID_LEN);
  memcpy (hello.crg_id, cfg.crg_id, CRG_ID_LEN);
  memcpy (hello.iasp_id, cfg.iasp_id, CRG_ID_LEN);
  memcpy (hello.lineage, cfg.lineage, CRG_ID_LEN);
  strcpy (hello.node, "p1");
  hello.peer_site = 1;
  hello.tenure = 5;
  hello.size = 1 << 20;
  hello.block_size = 4096;
  hello.dirty_block_size = 65536;
  check (copy_init (&c, &cfg, 0) == NULL, "init");
}

static const struct copy_action *
find (unsigned kind)
{
  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == kind)
      return &out.a[i];
  return &nothing;
}

static unsigned
count (unsigned kind)
{
  unsigned n = 0;
  for (unsigned i = 0; i < out.n; i++)
    n += out.a[i].kind == kind;
  return n;
}

static bool
has (unsigned kind)
{
  return count (kind) > 0;
}

static void
say_hello (uint32_t conn)
{
  step ((struct copy_event){ .kind = CE_HELLO, .conn = conn, .peer = "p1", .hello = &hello });
}

static void
linked (void)
{
  start ();
  say_hello (1);
  check (has (CA_HELLO_OK), "linked");
}

static uint64_t seq;
static void
frame (unsigned type, uint64_t offset, uint32_t length, unsigned flags)
{
  struct wire_record rec = { .tenure = 5, .generation = 4, .since = 4 };
  struct copy_event ev = { .kind = CE_FRAME, .conn = 1 };

  ev.frame.type = (uint8_t) type;
  ev.frame.tenure = hello.tenure;
  ev.frame.seq = ++seq;
  ev.frame.offset = offset;
  ev.frame.length = length;
  ev.frame.flags = (uint16_t) flags;
  if (type == WIRE_WRITE || type == WIRE_RESYNC_WRITE)
    ev.frame.payload_len = length;
  ev.buf = (uint32_t) seq;
  ev.record = type == WIRE_ENTER ? &rec : NULL;
  step (ev);
}

static void
done (uint16_t op, int error)
{
  step ((struct copy_event){ .kind = CE_DONE, .op = op, .error = error });
}

static uint64_t
poll_ack (void)
{
  step ((struct copy_event){ .kind = CE_POLL });
  return has (CA_ACK) ? find (CA_ACK)->seq : 0;
}

static void
refuses (unsigned code, const char *what)
{
  say_hello (9);
  ok (has (CA_REFUSE) && find (CA_REFUSE)->refuse.code == code && !has (CA_HELLO_OK)
          && find (CA_REFUSE)->refuse.reason[0] != '\0',
      "refused: %s (\"%s\")", what, has (CA_REFUSE) ? find (CA_REFUSE)->refuse.reason : "no");
}

static void
test_hello (void)
{
  start ();
  hello.lineage[0]++;
  refuses (WIRE_REFUSE_LINEAGE, "another lineage (C9)");
  start ();
  hello.iasp_id[15]++;
  refuses (WIRE_REFUSE_IDENTITY, "another IASP");
  start ();
  hello.peer_site = 2;
  refuses (WIRE_REFUSE_IDENTITY, "another site");
  start ();
  hello.tenure = 4;
  refuses (WIRE_REFUSE_TENURE, "an older production (R1)");
  is (find (CA_REFUSE)->refuse.tenure, 5, "and told the tenure");
  start ();
  hello.size++;
  refuses (WIRE_REFUSE_SIZE, "a store too small (H8)");
  start ();
  hello.dirty_block_size *= 2;
  refuses (WIRE_REFUSE_BLOCK_SIZE, "another block size (H8)");
  start ();
  strcpy (hello.node, "p2");
  refuses (WIRE_REFUSE_NAME, "a name that the certificate does not have");
  start ();
  hello.proto_min = hello.proto_max = 9;
  refuses (WIRE_REFUSE_VERSION, "a protocol of another time");
  start ();
  c.cfg.fork = true;
  refuses (WIRE_REFUSE_FORK, "a fork (R6)");
  start ();
  step ((struct copy_event){ .kind = CE_STOP });
  ok (has (CA_IDLE), "role taken, nothing under way: idle at once");
  refuses (WIRE_REFUSE_ROLE, "no mirror role");

  start ();
  hello.tenure = 8;
  say_hello (1);
  ok (has (CA_SUPER) && find (CA_SUPER)->tenure == 8 && !has (CA_HELLO_OK),
      "R1: a higher tenure is on disk before the answer");
  done (COPY_OP_SUPER, 0);
  ok (has (CA_HELLO_OK) && find (CA_HELLO_OK)->hello_ok.tenure == 8, "then the answer");
  hello.tenure = 7;
  refuses (WIRE_REFUSE_TENURE, "and no lower one any more");
  hello.tenure = 8;
  strcpy (hello.node, "p2");
  step ((struct copy_event){ .kind = CE_HELLO, .conn = 2, .peer = "p2", .hello = &hello });
  ok (has (CA_REFUSE) && find (CA_REFUSE)->refuse.code == WIRE_REFUSE_TENURE && !has (CA_CLOSE),
      "R1: nor another node of that tenure, which doesn't disturb the link");
  step ((struct copy_event){ .kind = CE_RECORD, .conn = 0,
                             .record = &(struct wire_record){ .tenure = 9, .generation = 9, .in_set = 1 } });
  done (COPY_OP_SUPER, 0);
  hello.tenure = 9;
  step ((struct copy_event){ .kind = CE_CLOSED, .conn = 1 });
  step ((struct copy_event){ .kind = CE_HELLO, .conn = 3, .peer = "p2", .hello = &hello });
  ok (has (CA_HELLO_OK), "but as production of the next tenure it is let in");

  start ();
  hello.tenure = 8;
  say_hello (1);
  done (COPY_OP_SUPER, -EIO);
  ok (has (CA_REFUSE) && has (CA_FAILED) && !has (CA_HELLO_OK),
      "a superblock that can't be written: refused, and the store counts as failed");
  refuses (WIRE_REFUSE_STORE, "a failed store (F4)");

  start ();
  c.restarted = c.empty = true;
  say_hello (1);
  is (find (CA_HELLO_OK)->hello_ok.flags, WIRE_OK_RESTARTED | WIRE_OK_EMPTY, "flags of the store");
  is (find (CA_HELLO_OK)->hello_ok.window_frames, 64, "the window");
}

/* What the shell must not ask for. */
static void
test_init (void)
{
  static uint8_t memory[1 << 20];
  static struct mark m;

#define REFUSED(change, text)                                                       \
  do {                                                                              \
    start ();                                                                       \
    change;                                                                         \
    const char *why_ = copy_init (&c, &cfg, 0);                                     \
    ok (why_ != NULL && why_[0], "init refuses %s: %s", text, why_ ? why_ : "no");  \
  } while (0)
  REFUSED (cfg.size = 0, "no data");
  REFUSED (cfg.size = STORE_MAX_BYTES + 1, "more data than any store has");
  REFUSED (cfg.window_frames = 7, "too few frames");
  REFUSED (cfg.window_frames = COPY_MAX_OPS + 1, "too many frames");
  REFUSED (cfg.window_bytes = 2 * DIRTY_BLOCK_SIZE_MAX - 1, "too few bytes");
  REFUSED (cfg.window_bytes = LINK_WINDOW_BYTES + 1, "too many bytes");
  REFUSED (cfg.site = CRG_MAX_SITES, "a site that is none");
  mark_init (&m, memory, 1 << 20, 65536, 65536, 2 * HOT_MAX_SPAN, 3);
  REFUSED ((cfg.mark = &m, cfg.dirty_block_size = 131072), "maps of another block");
  REFUSED ((cfg.mark = &m, cfg.size = 2 << 20), "maps of another size");
}

/* Every field of HELLO that has to fit. */
static void
test_strangers (void)
{
  start ();
  hello.cluster_id[3]++;
  refuses (WIRE_REFUSE_IDENTITY, "another cluster");
  start ();
  hello.crg_id[3]++;
  refuses (WIRE_REFUSE_IDENTITY, "another CRG");
  start ();
  hello.site = 1;
  refuses (WIRE_REFUSE_IDENTITY, "production at the copy's own site");
  start ();
  hello.site = CRG_MAX_SITES;
  refuses (WIRE_REFUSE_IDENTITY, "production at a site that is none");
  start ();
  hello.proto_min = hello.proto_max = 0;
  refuses (WIRE_REFUSE_VERSION, "a protocol older than any");
  start ();
  hello.block_size = 256;
  refuses (WIRE_REFUSE_BLOCK_SIZE, "blocks smaller than this store's (H8)");
  start ();
  hello.block_size = 768;
  refuses (WIRE_REFUSE_BLOCK_SIZE, "blocks that are no multiple of them (H8)");
  start ();
  step ((struct copy_event){ .kind = CE_HELLO, .conn = 1, .peer = NULL, .hello = &hello });
  is (find (CA_REFUSE)->refuse.code, WIRE_REFUSE_NAME, "refused: a certificate without a name");
}

static void
test_status (void)
{
  struct copy_status st;

  start ();
  copy_status (&c, &st);
  ok (st.in_set && !st.linked && st.tenure == 5 && st.since == 2, "status: in the set");
  c.unusable = true;
  copy_status (&c, &st);
  ok (!st.in_set && st.unusable, "status: not if it is unusable");
  start ();
  c.since = 0;
  copy_status (&c, &st);
  ok (!st.in_set, "status: not in the set");
  is (copy_report_blocks (&c), 0, "without maps there is nothing to report");
}

static void
test_order (void)
{
  linked ();
  seq = 0;
  frame (WIRE_WRITE, 0, 8192, 0);
  is (count (CA_SUBMIT), 1, "a write is submitted at once");
  frame (WIRE_WRITE, 65536, 4096, 0);
  is (count (CA_SUBMIT), 1, "another range too");
  frame (WIRE_ZERO, 4096, 8192, 0);
  is (count (CA_SUBMIT), 0, "an overlapping one waits");
  frame (WIRE_WRITE, 8192, 4096, 0);
  is (count (CA_SUBMIT), 0, "and what overlaps that one");
  frame (WIRE_FLUSH, 0, 0, 0);
  is (count (CA_SUBMIT), 0, "FLUSH waits for all before it");
  frame (WIRE_WRITE, 131072, 4096, 0);
  is (count (CA_SUBMIT), 1, "what comes after FLUSH does not wait for it");
  done (2, 0);
  is (poll_ack (), 0, "the second is done, the first is not: no ACK");
  done (1, 0);
  ok (count (CA_SUBMIT) == 1 && find (CA_SUBMIT)->op == 3, "the overlapping one goes");
  ok (has (CA_RELEASE) && find (CA_RELEASE)->buf == 1, "a payload is let go");
  is (poll_ack (), 2, "one ACK for both");
  is (poll_ack (), 0, "and no second");
  done (6, 0);
  done (3, 0);
  ok (count (CA_SUBMIT) == 1 && find (CA_SUBMIT)->op == 4, "then the next in stream order");
  done (4, 0);
  ok (count (CA_SUBMIT) == 1 && find (CA_SUBMIT)->frame.type == WIRE_FLUSH, "then the FLUSH");
  is (poll_ack (), 4, "its answer waits for its end");
  done (5, 0);
  is (poll_ack (), 6, "and covers what was done beyond it");

  for (unsigned i = 0; i < COPY_ACK_OPS; i++) {
    frame (WIRE_TRIM, 4096 * i, 4096, 0);
    done ((uint16_t) (seq % COPY_MAX_OPS), 0);
  }
  ok (has (CA_ACK) && find (CA_ACK)->seq == seq, "a long batch is acknowledged without a poll");
}

static void
test_resync (void)
{
  linked ();
  seq = 0;
  frame (WIRE_WRITE, 0, 4096, 0);
  frame (WIRE_RESYNC_WRITE, 65536, 4096, 0);
  ok (has (CA_SUPER) && find (CA_SUPER)->unusable && !has (CA_SUBMIT),
      "before the first block the disk says: unusable");
  frame (WIRE_RESYNC_ZERO, 131072, 65536, WIRE_F_MAY_TRIM);
  frame (WIRE_WRITE, 262144, 4096, 0);
  is (count (CA_SUBMIT), 0, "all later ones wait for that");
  done (COPY_OP_SUPER, 0);
  is (count (CA_SUBMIT), 3, "then they go together");
  done (1, 0);
  done (2, 0);
  done (3, 0);
  frame (WIRE_RESYNC_WRITE, 0, 4096, 0);
  ok (!has (CA_SUPER) && has (CA_SUBMIT), "once is enough");
  done (5, 0);
  frame (WIRE_ENTER, 0, 0, 0);
  ok (!has (CA_SUPER), "ENTER waits for all before it");
  done (4, 0);
  ok (has (CA_SUPER) && find (CA_SUPER)->flush_data && !find (CA_SUPER)->unusable
          && find (CA_SUPER)->since == 4,
      "then: flush, and a superblock that says since when (R3)");
  is (poll_ack (), 5, "not acknowledged yet");
  frame (WIRE_WRITE, 0, 4096, 0);
  is (count (CA_SUBMIT), 1, "writes go on meanwhile");
  done (COPY_OP_SUPER, 0);
  is (poll_ack (), 6, "now");
  frame (WIRE_RESYNC_WRITE, 4096, 4096, 0);
  ok (has (CA_SUPER) && find (CA_SUPER)->unusable, "a later resync marks it again");

  /* Production gives its ENTER up and fills on, before the ENTER is done. */
  linked ();
  seq = 0;
  frame (WIRE_RESYNC_WRITE, 0, 4096, 0);
  done (COPY_OP_SUPER, 0);
  frame (WIRE_ENTER, 0, 0, 0);
  frame (WIRE_RESYNC_WRITE, 65536, 4096, 0);
  ok (!has (CA_SUBMIT), "a block behind an ENTER waits for it");
  done (1, 0);
  ok (has (CA_SUPER) && find (CA_SUPER)->since == 4, "which comes");
  frame (WIRE_RESYNC_WRITE, 131072, 4096, 0);
  ok (!has (CA_SUBMIT), "the next one too");
  frame (WIRE_WRITE, 262144, 4096, 0);
  ok (!has (CA_SUBMIT), "and a write behind them, which may be newer than they are");
  done (COPY_OP_SUPER, 0);
  ok (has (CA_SUPER) && find (CA_SUPER)->unusable && !has (CA_SUBMIT),
      "the store is unusable again before any is written");
  done (COPY_OP_SUPER, 0);
  is (count (CA_SUBMIT), 3, "then they go");
}

static const char *
breach (void)
{
  return has (CA_ERROR) ? find (CA_ERROR)->failure.reason : "no error";
}

/* A snapshot before the first block, while nothing is on its way. */
static void
test_snapshot (void)
{
  linked ();
  c.cfg.snapshot = true;
  seq = 0;
  frame (WIRE_WRITE, 0, 4096, 0);
  frame (WIRE_RESYNC_WRITE, 65536, 4096, 0);
  frame (WIRE_WRITE, 262144, 4096, 0);
  ok (!has (CA_SNAPSHOT) && !has (CA_SUPER), "nothing is kept while an earlier write is on its way");
  done (1, 0);
  ok (has (CA_SNAPSHOT) && !has (CA_SUPER) && !has (CA_SUBMIT), "then what it holds is kept, and nothing else");
  frame (WIRE_WRITE, 524288, 4096, 0);
  ok (!has (CA_SUBMIT), "later writes wait for it");
  step ((struct copy_event){ .kind = CE_RECORD, .record = &(struct wire_record){ .tenure = 5, .generation = 9 } });
  done (COPY_OP_SNAPSHOT, 0);
  ok (has (CA_SUPER) && find (CA_SUPER)->unusable && !has (CA_SUBMIT), "then the disk says: unusable");
  done (COPY_OP_SUPER, 0);
  is (count (CA_SUBMIT), 3, "then the blocks are written");
  for (uint16_t i = 2; i <= 4; i++)
    done (i, 0);
  frame (WIRE_RESYNC_WRITE, 0, 4096, 0);
  ok (!has (CA_SNAPSHOT) && has (CA_SUBMIT), "once is enough");
  done (5, 0);
  frame (WIRE_ENTER, 0, 0, 0);
  ok (!has (CA_SNAPSHOT_DROP), "it is kept while the copy enters the set");
  frame (WIRE_RESYNC_WRITE, 4096, 4096, 0);
  frame (WIRE_WRITE, 8192, 4096, 0);
  ok (!has (CA_SUBMIT), "what comes behind a given-up ENTER waits");
  done (COPY_OP_SUPER, 0);
  ok (has (CA_SNAPSHOT_DROP) && has (CA_SNAPSHOT) && !has (CA_SUPER), "when it is filled the older state goes, and this one is kept");
  done (COPY_OP_SNAPSHOT, 0);
  ok (has (CA_SUPER) && find (CA_SUPER)->unusable, "and then it is unusable again");
  step ((struct copy_event){ .kind = CE_DONE, .op = COPY_OP_SNAPSHOT });
  is (c.status.illegal, 1, "a snapshot that nobody asked for is counted");

  /* It fails: the disk stays as it is, and the next link tries again. */
  linked ();
  c.cfg.snapshot = true;
  seq = 0;
  frame (WIRE_RESYNC_WRITE, 0, 4096, 0);
  ok (has (CA_SNAPSHOT), "it is asked for");
  done (COPY_OP_SNAPSHOT, -ENOSPC);
  ok (has (CA_ERROR) && find (CA_ERROR)->op == COPY_OP_SNAPSHOT && find (CA_ERROR)->failure.code == WIRE_E_NO_SPACE
          && !has (CA_SUPER) && !has (CA_FAILED),
      "without a snapshot the link ends, with a reason");
  hello.tenure = 6;
  say_hello (1);
  ok (has (CA_SUPER) && !find (CA_SUPER)->unusable && find (CA_SUPER)->since == 2 && find (CA_SUPER)->tenure == 6,
      "a higher tenure is stored, and the disk still says since when");
  done (COPY_OP_SUPER, 0);
  seq = 0;
  frame (WIRE_RESYNC_WRITE, 0, 4096, 0);
  ok (has (CA_SNAPSHOT) && !has (CA_SUBMIT), "the next link's first block asks again");
  step ((struct copy_event){ .kind = CE_CLOSED, .conn = 1 });
  step ((struct copy_event){ .kind = CE_STOP });
  ok (!has (CA_IDLE), "the store is not given up while a snapshot is made");
  done (COPY_OP_SNAPSHOT, -EIO);
  ok (has (CA_IDLE) && !has (CA_ERROR), "then it is");

  /* Its link ends before it could begin. */
  linked ();
  c.cfg.snapshot = true;
  seq = 0;
  frame (WIRE_WRITE, 0, 4096, 0);
  frame (WIRE_RESYNC_WRITE, 65536, 4096, 0);
  step ((struct copy_event){ .kind = CE_CLOSED, .conn = 1 });
  done (1, 0);
  ok (!has (CA_SNAPSHOT) && !has (CA_SUPER), "a link that ends before takes its snapshot with it");
  say_hello (1);
  seq = 0;
  frame (WIRE_RESYNC_ZERO, 65536, 4096, 0);
  ok (has (CA_SNAPSHOT), "the next one asks for it");
  done (COPY_OP_SNAPSHOT, 0);
  done (COPY_OP_SUPER, 0);
  ok (has (CA_SUBMIT), "and goes on");

  /* There is nothing to keep. */
  start ();
  cfg.snapshot = cfg.unusable = cfg.empty = true;
  check (copy_init (&c, &cfg, 0) == NULL, "init");
  say_hello (1);
  seq = 0;
  frame (WIRE_RESYNC_WRITE, 65536, 4096, 0);
  ok (!has (CA_SNAPSHOT), "a store that holds nothing coherent is not kept");
}

static void
test_breaches (void)
{
  linked ();
  seq = 1;
  frame (WIRE_WRITE, 0, 4096, 0);
  ok (strstr (breach (), "sequence"), "a gap in the sequence: \"%s\"", breach ());
  linked ();
  seq = 0;
  frame (WIRE_WRITE, cfg.size - 2048, 4096, 0);
  ok (has (CA_ERROR) && find (CA_ERROR)->failure.code == WIRE_E_RANGE && has (CA_RELEASE),
      "beyond the end: \"%s\", payload let go", breach ());
  linked ();
  seq = 0;
  hello.tenure = 4;
  frame (WIRE_WRITE, 0, 4096, 0);
  ok (has (CA_ERROR) && find (CA_ERROR)->failure.code == WIRE_E_TENURE, "older tenure: \"%s\"",
      breach ());
  linked ();
  seq = 0;
  frame (WIRE_DIGEST_REQ, 0, 4096, 0);
  ok (has (CA_ERROR), "a frame that was not agreed on: \"%s\"", breach ());
  linked ();
  seq = 0;
  for (unsigned i = 0; i <= cfg.window_frames; i++)
    frame (WIRE_ZERO, 0, 512, 0);
  ok (strstr (breach (), "window"), "more frames than the window: \"%s\"", breach ());
  linked ();
  seq = 0;
  for (unsigned i = 0; i <= cfg.window_bytes / LINK_MAX_PAYLOAD; i++)
    frame (WIRE_WRITE, 0, LINK_MAX_PAYLOAD, 0);
  ok (strstr (breach (), "window"), "more bytes than the window: \"%s\"", breach ());
  ok (!c.linked, "and the link is over");
  frame (WIRE_WRITE, 0, 4096, 0);
  ok (out.n > 0 && has (CA_RELEASE) && !has (CA_SUBMIT), "late frames are dropped");
}

static void
test_end (void)
{
  unsigned released = 0;

  linked ();
  seq = 0;
  for (unsigned i = 0; i < 50; i++)
    frame (WIRE_WRITE, 0, 4096, 0); /* the first is submitted, the rest waits */
  step ((struct copy_event){ .kind = CE_CLOSED, .conn = 1 });
  for (unsigned i = 0; i < 10; i++) {
    released += count (CA_RELEASE);
    if (!out.more)
      break;
    step ((struct copy_event){ .kind = CE_POLL });
  }
  is (released, 49, "a link's end drops what was not submitted");
  say_hello (2);
  ok (has (CA_REFUSE) && find (CA_REFUSE)->refuse.code == WIRE_REFUSE_BUSY,
      "R1: no new link before the old one's last write has returned");
  done (1, 0);
  say_hello (2);
  ok (has (CA_HELLO_OK), "then it may come");
  say_hello (3);
  ok (has (CA_CLOSE) && find (CA_CLOSE)->conn == 2 && has (CA_REFUSE)
          && find (CA_REFUSE)->refuse.code == WIRE_REFUSE_BUSY,
      "a second link ends the first and comes again");
  say_hello (3);
  ok (has (CA_HELLO_OK), "and is let in");

  linked ();
  seq = 0;
  frame (WIRE_WRITE, 0, 4096, 0);
  frame (WIRE_WRITE, 65536, 4096, 0);
  done (2, -ENOSPC);
  ok (has (CA_ERROR) && find (CA_ERROR)->seq == 2
          && find (CA_ERROR)->failure.code == WIRE_E_NO_SPACE && has (CA_FAILED),
      "a failed write: ERROR for that operation, and F4");
  done (1, 0);
  is (poll_ack (), 0, "no ACK after it");
  say_hello (2);
  ok (has (CA_REFUSE) && find (CA_REFUSE)->refuse.code == WIRE_REFUSE_STORE,
      "and no link any more");

  linked ();
  seq = 0;
  frame (WIRE_FLUSH, 0, 0, 0);
  done (1, -EIO);
  ok (has (CA_ERROR) && has (CA_FAILED), "a failed flush is a failed store");

  linked ();
  seq = 0;
  frame (WIRE_WRITE, 0, 4096, 0);
  step ((struct copy_event){ .kind = CE_STOP });
  ok (has (CA_CLOSE) && !has (CA_IDLE), "role taken: not idle while a write is under way");
  done (1, 0);
  ok (has (CA_IDLE), "idle when it has returned");

  linked ();
  {
    struct wire_record rec = { .tenure = 6, .generation = 9 };
    step ((struct copy_event){ .kind = CE_RECORD, .record = &rec });
  }
  ok (has (CA_CLOSE) && has (CA_SUPER) && find (CA_SUPER)->tenure == 6 && has (CA_RECORD),
      "a newer appointment ends an older production's link (R1)");
  done (COPY_OP_SUPER, 0);
  refuses (WIRE_REFUSE_TENURE, "and it can't come back");

  linked ();
  {
    struct wire_record rec = { .tenure = 6, .generation = 9 };
    step ((struct copy_event){ .kind = CE_RECORD, .record = &rec, .appointed = true });
  }
  ok (has (CA_CLOSE) && !has (CA_SUPER), "so does its own appointment, which its disk says when it is opened so (R1, R4)");
  refuses (WIRE_REFUSE_TENURE, "and that one can't come back either");

  linked ();
  done (7, 0);
  done (COPY_OP_SUPER, 0);
  is (c.status.illegal, 2, "answers to nothing are counted, and ignored");
}

/* --- tracking -------------------------------------------------------------------------------- */

static struct mark mark;
static uint8_t mark_memory[1 << 20];
static unsigned regions = 16;

static void
linked_marked (bool empty)
{
  start ();
  cfg.size = hello.size = (uint64_t) regions * 65536;
  memset (mark_memory, 0, sizeof mark_memory);
  mark_init (&mark, mark_memory, cfg.size, 65536, 65536, 2 * HOT_MAX_SPAN, 3);
  cfg.mark = &mark;
  if (empty) {
    cfg.empty = cfg.unusable = true;
    cfg.since = 0;
    bits_fill (&mark.bits[1], true);
  }
  check (copy_init (&c, &cfg, 0) == NULL, "init");
  hello.features = WIRE_FEATURE_TRACKING | WIRE_FEATURE_SYNC | WIRE_FEATURE_KEEP;
  say_hello (1);
  check (has (CA_HELLO_OK) && find (CA_HELLO_OK)->hello_ok.features == hello.features, "linked");
  seq = 0;
}

static void
marked (void)
{
  struct mark_block b;
  while (mark_next (&mark, &b))
    ;
  done (COPY_OP_MARK, 0);
}

/* STABLE with SYNC: a flush aside of the stream. */
static void
test_sync (void)
{
  const struct copy_event ask = { .kind = CE_STABLE, .conn = 1, .frame = { .flags = WIRE_F_SYNC } };

  linked_marked (false);
  frame (WIRE_WRITE, 0, 4096, 0);
  marked ();
  done (0 + 1, 0);
  frame (WIRE_WRITE, 8192, 4096, 0);
  ok (has (CA_SUBMIT), "a second write is on its way");
  step (ask);
  ok (has (CA_SYNC) && find (CA_SYNC)->op == COPY_OP_SYNC, "production asks for a flush: it begins at once");
  done (2, 0);
  step ((struct copy_event){ .kind = CE_POLL });
  ok (has (CA_ACK) && find (CA_ACK)->seq == 2, "a write that is done meanwhile is acknowledged before the flush is over");
  step (ask);
  ok (!has (CA_SYNC), "one at a time");
  done (COPY_OP_SYNC, 0);
  ok (has (CA_STABLE) && find (CA_STABLE)->seq == 1 && find (CA_STABLE)->conn == 1,
      "the answer covers what was done when the flush began, not what was done meanwhile");
  ok (has (CA_SYNC), "and the next one begins");
  step ((struct copy_event){ .kind = CE_CLOSED, .conn = 1 });
  say_hello (2);
  ok (has (CA_REFUSE), "R1: no new link while the old one's flush is on its way");
  done (COPY_OP_SYNC, 0);
  ok (!has (CA_STABLE), "nobody is told of a flush whose link is gone");
  say_hello (3);
  ok (has (CA_HELLO_OK), "then the new one is taken");
  done (COPY_OP_SYNC, 0);
  is (c.status.illegal, 1, "the end of a flush that is not on its way is counted");
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 1, .frame = { .flags = WIRE_F_SYNC } });
  ok (!has (CA_SYNC), "a late question of the old link starts none");
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 3, .frame = { .flags = WIRE_F_SYNC } });
  step ((struct copy_event){ .kind = CE_STOP });
  ok (!has (CA_IDLE), "F6: a role is over when the flush is");
  done (COPY_OP_SYNC, 0);
  ok (has (CA_IDLE), "now");

  linked_marked (false);
  step (ask);
  done (COPY_OP_SYNC, -5);
  ok (has (CA_FAILED) && has (CA_ERROR) && !has (CA_STABLE), "F4: a flush that fails is the end of the store");

  /* A flush aside of the stream takes nothing from what is kept. */
  linked_marked (false);
  c.cfg.snapshot = true;
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 1, .frame = { .flags = WIRE_F_SYNC } });
  ok (has (CA_SYNC), "a flush is on its way");
  frame (WIRE_RESYNC_WRITE, 65536, 4096, 0);
  ok (has (CA_SNAPSHOT), "what it holds is kept meanwhile");
  done (COPY_OP_SYNC, 0);
  ok (has (CA_STABLE) && !has (CA_SUPER), "each of the two ends for itself");
}

/* What was never written is zeroes (W1): a copy that is filled with them does nothing. */
static void
test_written (void)
{
  static uint8_t written[2 * META_BLOCK_SIZE];

  linked_marked (true);
  memset (written, 0, sizeof written);
  mark_use_written (&mark, written);
  frame (WIRE_RESYNC_ZERO, 0, 4 * 65536, WIRE_F_MAY_TRIM);
  while (has (CA_MARK))
    marked ();
  ok (has (CA_SUPER) && find (CA_SUPER)->unusable, "first its disk says that it is being filled");
  done (COPY_OP_SUPER, 0);
  ok (has (CA_NOTHING) && !has (CA_SUBMIT) && !has (CA_MARK), "then there is nothing to do");
  ok (find (CA_NOTHING)->op == 1 && find (CA_NOTHING)->frame.length == 4 * 65536, "... for this one");
  is (poll_ack (), 1, "... which is acknowledged");
  ok (!bits_get (&mark.bits[1], 3) && bits_get (&mark.bits[1], 4), "it lacks these blocks no more");
  is (mark_unwritten (&mark, 0, cfg.size), cfg.size, "and they still count as never written");
  frame (WIRE_RESYNC_WRITE, 5 * 65536, 65536, 0);
  ok (has (CA_MARK) && !has (CA_SUBMIT), "data waits for its mark");
  frame (WIRE_RESYNC_ZERO, 4 * 65536, 3 * 65536, WIRE_F_MAY_TRIM);
  ok (!has (CA_NOTHING) && !has (CA_SUBMIT), "zeroes behind it for a range that it is in wait for it");
  marked ();
  ok (has (CA_SUBMIT) && find (CA_SUBMIT)->op == 2 && count (CA_SUBMIT) == 1, "the data goes");
  done (2, 0);
  while (mark.stage != MS_IDLE)
    marked ();
  ok (has (CA_SUBMIT) && find (CA_SUBMIT)->op == 3, "then the zeroes");
  done (3, 0);
  frame (WIRE_RESYNC_ZERO, 0, 65536, WIRE_F_MAY_TRIM);
  ok (!has (CA_NOTHING), "what it does not know itself to lack is written: somebody has seen it differ");
  while (mark.stage != MS_IDLE)
    marked ();
  done (find (CA_SUBMIT)->op, 0);
  bits_fill (&mark.bits[1], true);
  check (mark_unwritten (&mark, 65536, 15 * 65536) == 3 * 65536, "blocks 1 to 3 were never written");
  frame (WIRE_RESYNC_ZERO, 65536, 7 * 65536, WIRE_F_MAY_TRIM);
  while (mark.stage != MS_IDLE)
    marked ();
  ok (has (CA_SUBMIT) && find (CA_SUBMIT)->frame.offset == 4 * 65536 && find (CA_SUBMIT)->frame.length == 4 * 65536
          && find (CA_SUBMIT)->skip == 3 * 65536,
      "what was never written is cut off in front");
  ok (count (CA_NOTHING) == 1 && find (CA_NOTHING)->frame.offset == 65536
          && find (CA_NOTHING)->frame.length == 3 * 65536 && find (CA_NOTHING)->skip == 0,
      "... with nothing to do for it");
  done (find (CA_SUBMIT)->op, 0);
  bits_fill (&mark.bits[1], true);
  frame (WIRE_RESYNC_ZERO, 0, 4 * 65536, WIRE_F_MAY_TRIM);
  while (mark.stage != MS_IDLE)
    marked ();
  ok (has (CA_SUBMIT) && find (CA_SUBMIT)->frame.offset == 0 && find (CA_SUBMIT)->frame.length == 65536
          && find (CA_NOTHING)->skip == 65536,
      "... and behind");
  done (find (CA_SUBMIT)->op, 0);
  ok (mark.bits[1].n_set == 12 && mark_unwritten (&mark, 65536, 65536) == 65536, "all of it is lacking no more");
  frame (WIRE_ZERO, 15 * 65536, 4096, WIRE_F_MAY_TRIM);
  ok (has (CA_MARK) && !has (CA_NOTHING), "a client's zeroes are written");
  while (mark.stage != MS_IDLE)
    marked ();
  ok (mark_unwritten (&mark, 15 * 65536, 4096) == 0, "... and noted");
}

static void
test_tracking (void)
{
  uint8_t map[META_BLOCK_PAYLOAD];
  uint64_t of;
  struct wire_record rec = { .tenure = 5, .generation = 4, .since = 2, .in_set = 7 };

  linked_marked (false);
  step ((struct copy_event){ .kind = CE_CLOSED, .conn = 1 });
  hello.site = 3;
  refuses (WIRE_REFUSE_IDENTITY, "production at a site that the copy has no map for");

  linked_marked (false);
  struct copy_event ev = { .kind = CE_FRAME, .conn = 1, .buf = 1 };
  ev.frame = (struct wire_header){ .type = WIRE_WRITE, .tenure = 5, .seq = ++seq, .offset = 3 * 65536,
                                   .length = 4096, .payload_len = 4096, .missing = 1u << 2 };
  step (ev);
  ok (has (CA_MARK) && !has (CA_SUBMIT), "a block waits until its region is hot on the disk");
  marked ();
  ok (has (CA_SUBMIT), "then it is written");
  ok (bits_get (&mark.bits[2], 3) && mark.bits[2].n_set == 1, "R2: and noted for the site outside the set");
  done (find (CA_SUBMIT)->op, 0);
  is (copy_report (&c, 0, map, &of), 1, "it may differ in that region");
  ok (map[0] == 8 && of == 16, "the fourth block of 16");
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 1, .frame = { .seq = 1, .flags = WIRE_F_CLEAR } });
  ok (has (CA_MARK) && mark.stage == MS_BITS, "stable: what the absent site lacks goes to the disk");
  marked ();
  ok (has (CA_MARK) && mark.stage == MS_HOT, "then the hot map without the mark");
  marked ();
  is (copy_report (&c, 0, map, &of), 0, "it can't differ any more");
  step ((struct copy_event){ .kind = CE_RECORD, .conn = 0, .record = &rec });
  is (mark.bits[2].n_set, 1, "a record that did not come in the stream clears nothing");
  step ((struct copy_event){ .kind = CE_RECORD, .conn = 1, .record = &rec });
  is (mark.bits[2].n_set, 0, "one in the stream with the site in the set does");
  frame (WIRE_WRITE, 7 * 65536, 4096, 0);
  marked ();
  done (find (CA_SUBMIT)->op, 0);
  rec.in_set = 3;
  step ((struct copy_event){ .kind = CE_RECORD, .conn = 1, .record = &rec });
  ok (bits_get (&mark.bits[2], 7), "R2: a site that leaves may lack what is hot");
  step ((struct copy_event){ .kind = CE_CLOSED, .conn = 1 });
  say_hello (2);
  is (copy_report (&c, 0, map, &of), 1, "a new link: what was hot is reported");
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 2, .frame = { .seq = 0, .flags = WIRE_F_CLEAR } });
  is (copy_report (&c, 0, map, &of), 1, "and no number of the new link clears it");
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 2, .frame = { .seq = 0, .flags = WIRE_F_SETTLED } });
  is (copy_report (&c, 0, map, &of), 0, "SETTLED does");

  linked_marked (true);
  is (copy_report (&c, 0, map, &of), 16, "a store that was never filled lacks everything");
  frame (WIRE_RESYNC_WRITE, 0, 65536, 0);
  ok (has (CA_MARK) && mark.stage == MS_BITS && !has (CA_SUPER), "first it notes on disk what it lacks");
  marked ();
  ok (has (CA_SUPER) && find (CA_SUPER)->filling && !has (CA_SUBMIT), "then that it is being filled");
  while (mark.stage != MS_IDLE)
    marked ();
  done (COPY_OP_SUPER, 0);
  ok (has (CA_SUBMIT), "then the block is written");
  done (find (CA_SUBMIT)->op, 0);
  is (mark.bits[1].n_set, 15, "and lacking no more");
  frame (WIRE_ENTER, 0, 0, 0);
  while (mark.stage != MS_IDLE)
    marked ();
  ok (has (CA_SUPER) && find (CA_SUPER)->since == 4 && !find (CA_SUPER)->filling && mark.persisted == mark.wanted,
      "R3: ENTER's superblock comes when the maps are on disk");
  done (COPY_OP_SUPER, 0);
  is (mark.bits[1].n_set, 0, "entered: it lacks nothing");
  done (COPY_OP_MARK, -EIO);
  ok (has (CA_FAILED), "F4: a mark that can't be written");

  /* STABLE that is not of this link. */
  linked_marked (false);
  frame (WIRE_WRITE, 0, 4096, 0);
  marked ();
  done (find (CA_SUBMIT)->op, 0);
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 9, .frame = { .seq = 1, .flags = WIRE_F_CLEAR } });
  ok (copy_report (&c, 0, map, &of) == 1 && !has (CA_MARK), "STABLE of another connection clears nothing");
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 1, .frame = { .seq = seq + 1, .flags = WIRE_F_CLEAR } });
  ok (copy_report (&c, 0, map, &of) == 1 && !has (CA_MARK), "nor does one of what never came");
  step ((struct copy_event){ .kind = CE_CLOSED, .conn = 1 });
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 1, .frame = { .seq = 1, .flags = WIRE_F_CLEAR } });
  is (copy_report (&c, 0, map, &of), 1, "nor one of a link that is over");
  uint64_t illegal = c.status.illegal;
  done (COPY_OP_MARK, 0);
  is (c.status.illegal, illegal + 1, "a map that nobody wrote is counted");
}

/* Writes to four times as many regions as the copy can have marked at once, all of them stable everywhere. */
static void
fill_marks (unsigned flags)
{
  uint8_t map[META_BLOCK_PAYLOAD];
  uint64_t of;

  regions = 8 * HOT_MAX_SPAN;
  linked_marked (false);
  for (unsigned i = 0; i < regions; i++) {
    frame (WIRE_WRITE, i * 65536, 4096, flags);
    while (mark.stage != MS_IDLE)
      marked ();
    done ((uint16_t) (seq % COPY_MAX_OPS), 0);
    if (i % 16 == 15)
      step ((struct copy_event){ .kind = CE_STABLE, .conn = 1, .frame = { .seq = seq } });
  }
  while (mark.stage != MS_IDLE)
    marked ();
  ok (c.n_hot_wait == 0 && c.done_seq == regions, "no write waits for a free region");
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 1, .frame = { .seq = seq, .flags = WIRE_F_CLEAR } });
  while (mark.stage != MS_IDLE)
    marked ();
  is (mark.hot.n_entries, 0, "stable: no region is taken");
  is (copy_report (&c, 0, map, &of), flags & WIRE_F_KEEP ? regions : 0,
      flags & WIRE_F_KEEP ? "but what was to be kept is marked" : "nor marked");
}

/* More regions at once than can be marked: a production that doesn't say what is stable waits, for as long as that. */
static void
test_full (void)
{
  const struct wire_record without_2 = { .tenure = 5, .generation = 4, .since = 2, .in_set = 3 };

  regions = 8 * HOT_MAX_SPAN;
  linked_marked (false);
  while (seq < 2 * HOT_MAX_SPAN) {
    frame (WIRE_WRITE, seq * 65536, 4096, 0);
    while (mark.stage != MS_IDLE)
      marked ();
    done ((uint16_t) (seq % COPY_MAX_OPS), 0);
  }
  is (c.done_seq, 2 * HOT_MAX_SPAN, "as many regions as can be marked are written");
  frame (WIRE_WRITE, seq * 65536, 4096, 0);
  ok (!has (CA_SUBMIT) && !has (CA_MARK) && c.n_hot_wait == 1, "the next one waits for a free one");
  step ((struct copy_event){ .kind = CE_RECORD, .conn = 1, .record = &without_2 });
  ok (bits_get (&mark.bits[2], seq - 1), "R2: a site that leaves may lack it, though its region is not hot yet");
  frame (WIRE_WRITE, 0, 4096, 0);
  ok (has (CA_SUBMIT), "one that is marked need not wait");
  done ((uint16_t) (seq % COPY_MAX_OPS), 0);
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 1, .frame = { .seq = 4 } });
  while (mark.stage != MS_IDLE)
    marked ();
  ok (c.n_hot_wait == 0 && has (CA_SUBMIT) && find (CA_SUBMIT)->frame.seq == 2 * HOT_MAX_SPAN + 1,
      "when some of it is stable it is marked, and goes");
  done ((uint16_t) ((seq - 1) % COPY_MAX_OPS), 0);
  is (c.done_seq, seq, "all is done");

  linked_marked (false);
  while (seq < 2 * HOT_MAX_SPAN + 2) {
    frame (WIRE_WRITE, seq * 65536, 4096, 0);
    while (mark.stage != MS_IDLE)
      marked ();
    if (has (CA_SUBMIT))
      done ((uint16_t) (seq % COPY_MAX_OPS), 0);
  }
  is (c.n_hot_wait, 2, "two wait");
  step ((struct copy_event){ .kind = CE_CLOSED, .conn = 1 });
  is (c.n_hot_wait, 0, "the end of the link is the end of their wait");
  say_hello (2);
  ok (has (CA_HELLO_OK), "and a new link is taken");
}

/* SETTLED is of the marks that there were: not of what the end of its link makes of those that came with that link. */
static void
test_settled_late (void)
{
  uint8_t map[META_BLOCK_PAYLOAD];
  uint64_t of;

  regions = 16;
  linked_marked (false);
  frame (WIRE_WRITE, 0, 4096, 0);
  marked ();
  done (find (CA_SUBMIT)->op, 0);
  frame (WIRE_WRITE, 3 * 65536, 4096, 0);
  marked ();
  done (find (CA_SUBMIT)->op, 0);
  frame (WIRE_WRITE, 7 * 65536, 4096, 0);
  ok (mark.stage != MS_IDLE, "a mark is on its way to the disk");
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 1, .frame = { .seq = 1, .flags = WIRE_F_SETTLED } });
  step ((struct copy_event){ .kind = CE_CLOSED, .conn = 1 });
  while (mark.stage != MS_IDLE)
    marked ();
  say_hello (2);
  copy_report (&c, 0, map, &of);
  ok (has (CA_HELLO_OK) && (map[0] & 1u << 3), "a SETTLED that its link's end overtook clears nothing of the next link's");
}

/* KEEP: the mark of what makes it equal stays, though the region is free for others. */
static void
test_keep (void)
{
  uint8_t map[META_BLOCK_PAYLOAD];
  uint64_t of;

  fill_marks (0);
  fill_marks (WIRE_F_KEEP);
  frame (WIRE_WRITE, 0, 4096, 0);
  ok (has (CA_SUBMIT), "such a region is written without another mark");
  done ((uint16_t) (seq % COPY_MAX_OPS), 0);
  step ((struct copy_event){ .kind = CE_STABLE, .conn = 1,
                             .frame = { .seq = seq, .flags = WIRE_F_SETTLED | WIRE_F_CLEAR } });
  while (mark.stage != MS_IDLE)
    marked ();
  is (copy_report (&c, 0, map, &of), 0, "settled: all marks go");
}

int
main (void)
{
  test_init ();
  test_hello ();
  test_strangers ();
  test_status ();
  test_order ();
  test_resync ();
  test_snapshot ();
  test_breaches ();
  test_end ();
  test_sync ();
  test_tracking ();
  test_written ();
  test_keep ();
  test_full ();
  test_settled_late ();
  return tap_done ();
}
