/* SPDX-License-Identifier: BSD-3-Clause */
/* Fuzz target: what the members of a group tell each other, and keep.  The first byte chooses: the
 * codecs of state, change and message (what is accepted survives a round trip), the state file, the
 * frames of both engines, or a group core in a view of three that is told whatever the bytes say, by
 * members that may say it.  Nothing of it may trip an assertion.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/util.h"
#include "server/cpg_frame.h"
#include "server/group_private.h"
#include "server/hub_frame.h"
#include "server/statefile.h"
#include "tests/crg-def.h"

#define REQUIRE(cond) \
  do {                \
    if (!(cond))      \
      abort ();       \
  } while (0)

#define VIEW 7

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static uint8_t one[GROUP_BYTES_MAX], two[GROUP_BYTES_MAX];

static void
state_codec (const uint8_t *data, size_t size)
{
  static struct crg_state s;
  size_t n, k;

  if (state_decode (&s, data, size) != 0)
    return;
  n = state_encode (&s, one, sizeof one);
  REQUIRE (n > 0 && state_decode (&s, one, n) == 0);
  k = state_encode (&s, two, sizeof two);
  REQUIRE (k == n && memcmp (one, two, n) == 0);
  REQUIRE (s.def.n_nodes <= CRG_MAX_NODES && s.def.n_sites <= CRG_MAX_SITES && s.def.n_iasps <= CRG_MAX_IASPS);
  state_production_host (&s);
  state_tenure (&s);
}

static void
change_codec (const uint8_t *data, size_t size, const struct crg_state *created)
{
  static struct crg_state s;
  struct change c;
  size_t n;

  if (change_decode (&c, data, size) != 0)
    return;
  n = change_encode (&c, one, sizeof one);
  REQUIRE (n > 0 && change_decode (&c, one, n) == 0 && change_encode (&c, two, sizeof two) == n);
  REQUIRE (memcmp (one, two, n) == 0);
  /* Whatever a change says: valid or not, and if valid, the state stays one that can be told. */
  s = *created;
  c.base = s.stamp;
  if (state_check (&s, &c) == NULL) {
    state_apply (&s, &c);
    n = state_encode (&s, one, sizeof one);
    REQUIRE (n > 0 && state_decode (&s, one, n) == 0);
  }
}

static void
msg_codec (const uint8_t *data, size_t size)
{
  static struct msg m;
  size_t n, k;

  if (msg_decode (&m, data, size) != 0)
    return;
  n = msg_encode (&m, one, sizeof one);
  REQUIRE (n > 0 && msg_decode (&m, one, n) == 0);
  k = msg_encode (&m, two, sizeof two);
  REQUIRE (k == n && memcmp (one, two, n) == 0);
  msg_name (m.h.type);
}

static void
state_file (const uint8_t *data, size_t size)
{
  static struct crg_state s;
  static uint8_t file[65536];
  static char dir[] = "fuzz-state-XXXXXX";
  static bool made;
  char path[64];
  uint64_t promised;
  uint32_t hold_ms;
  int fd;

  if (!made && mkdtemp (dir) == NULL)
    abort ();
  made = true;
  if (size > sizeof file || size < 1)
    return;
  memcpy (file, data + 1, size - 1);
  size--;
  if (size >= 32 && (data[0] & 1)) { /* the length and the checksum put right */
    put_le32 (file + 12, (uint32_t) (size - 32));
    put_le32 (file + 28, crc32c (crc32c (0, file, 28), file + 32, size - 32));
  }
  snprintf (path, sizeof path, "%s/x.state", dir);
  fd = open (path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0 || write (fd, file, size) != (ssize_t) size)
    abort ();
  close (fd);
  if (statefile_load (dir, "x", &s, &promised, &hold_ms) == 0)
    REQUIRE (state_encode (&s, one, sizeof one) > 0);
}

static void
engine_frames (const uint8_t *data, size_t size)
{
  struct cpg_partial p = { 0 };
  struct hub_stream h;
  struct hub_frame hf;
  int fds[2];

  for (size_t at = 0; at + 2 <= size;) {
    size_t n = MIN ((size_t) (data[at] | data[at + 1] << 8), size - at - 2);
    struct cpg_frame f;

    if (cpg_frame_decode (data + at + 2, n, &f)) {
      enum cpg_piece piece;
      REQUIRE (f.kind > 0 && f.kind < CPG_FRAME_KIND_END && f.view != 0);
      REQUIRE (f.total <= CRG_ENGINE_MSG_MAX && (uint64_t) f.offset + f.len <= MAX (f.total, f.len));
      piece = cpg_partial_step (&p, &f);
      REQUIRE (piece <= CPG_PIECE_STRAY && (!p.open || p.have <= p.total));
    }
    at += 2 + n;
  }
  if (size > 65536 || socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0)
    return;
  if (write (fds[0], data, size) < 0)
    abort ();
  close (fds[0]);
  hub_stream_init (&h, fds[1]);
  while (hub_stream_fill (&h) > 0)
    ;
  while (hub_stream_next (&h, &hf) == 1)
    ;
  hub_stream_close (&h);
}

static void
core (const uint8_t *data, size_t size, const struct crg_state *created)
{
  static struct group g;
  static struct group_actions out;
  static struct msg m;
  struct group_config cfg = { .node_id = 1, .incarnation = 11, .token_ms = 300, .lease_ms = 1200,
                              .start_wait_ms = 1000 };
  struct group_event ev = { .kind = GE_VIEW, .view = VIEW, .members = { 1, 2, 3 }, .n_members = 3 };
  uint64_t now = 1000, round = 0;

  group_init (&g, &cfg, created, 1, now);
  ev.now_ms = now;
  group_step (&g, &ev, &out);
  for (size_t at = 0; at + 3 <= size && round++ < 200;) {
    uint8_t op = data[at];
    size_t n = MIN ((size_t) (data[at + 1] | data[at + 2] << 8), size - at - 3);

    ev = (struct group_event) { .kind = GE_TICK };
    if (op & 0x80)
      now += (uint64_t) (op & 0x7f) * 10;
    else {
      ev.kind = GE_MSG;
      ev.from = 1 + op % 4;
      ev.buf = data + at + 3;
      ev.len = n;
      /* As a member may say it: its own number, this view, our lineage. */
      if ((op & 0x40) && msg_decode (&m, ev.buf, n) == 0) {
        m.h.view = VIEW;
        m.h.sender = ev.from;
        m.h.incarnation = 10 + ev.from;
        memcpy (m.h.lineage, created->lineage, CRG_ID_LEN);
        ev.len = msg_encode (&m, one, sizeof one);
        ev.buf = one;
      }
    }
    ev.now_ms = now;
    group_step (&g, &ev, &out);
    REQUIRE (out.n <= GROUP_MAX_ACTIONS && out.used <= sizeof out.bytes);
    at += 3 + n;
  }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static struct crg_state created;
  static bool made;

  if (!made) {
    static struct crg_def d;
    static const uint8_t lineage[CRG_ID_LEN] = { 7 };

    crg_def_make (&d, 1, 1, 1);
    if (state_create (&created, &d, lineage) != NULL)
      abort ();
    created.started = true;
    made = true;
  }
  if (size < 1)
    return 0;
  switch (data[0] % 8) {
  case 0: state_codec (data + 1, size - 1); break;
  case 1: change_codec (data + 1, size - 1, &created); break;
  case 2: msg_codec (data + 1, size - 1); break;
  case 3: state_file (data + 1, size - 1); break;
  case 4: engine_frames (data + 1, size - 1); break;
  default: core (data + 1, size - 1, &created); break;
  }
  return 0;
}
