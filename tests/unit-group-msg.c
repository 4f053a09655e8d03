/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The codec of the group's messages: each type there and back, every
 * truncation refused, every flipped bit survived, and what a core does with
 * rubbish from the wire: counts it.
 */
#include "server/group_private.h"
#include "tests/tap.h"

static struct msg m, d;
static uint8_t buf[64 * 1024], buf2[64 * 1024];
static struct group g;
static struct group_actions out;

static void
fill (uint8_t type)
{
  static const uint8_t blob[] = "some bytes";

  memset (&m, 0, sizeof m);
  m.h.type = type;
  m.h.view = 77;
  m.h.sender = 3;
  m.h.incarnation = 12345;
  m.h.epoch = 5;
  m.h.lineage[0] = 1;
  switch (type) {
  case MSG_ANSWER:
    m.u.answer = (struct msg_answer) { 2, true, { 5, 6 }, 7, 3, 9 };
    break;
  case MSG_START:
    m.u.start = (struct msg_start) { 2, 8, 3, { 1, 2, 3 } };
    break;
  case MSG_PROMISED:
    m.u.promised = (struct msg_promised) { 2, 8, { 5, 6 } };
    break;
  case MSG_GROUP_STATE:
    m.u.group_state = (struct msg_group_state) { 2, 8, blob, sizeof blob };
    break;
  case MSG_PERSISTED:
    m.u.persisted = (struct msg_persisted) { { 5, 6 }, 2, { 3150, 7 }, 10500 };
    break;
  case MSG_CHANGE:
    m.u.change = (struct change) { .kind = CH_SHRINK, .iasps = 1, .site = 1 };
    strcpy (m.u.change.reason, "gone");
    break;
  case MSG_RENEW:
  case MSG_RENEWED:
    m.u.renew = (struct msg_renew) { 1, 1, 2, 3, 4, 10000 };
    break;
  case MSG_ANNOUNCE:
    m.u.announce.n_iasps = 2;
    m.u.announce.iasp[1].role = HOST_MIRROR;
    m.u.announce.iasp[1].opened = true;
    m.u.announce.iasp[1].store.generation = 4;
    strcpy (m.u.announce.iasp[0].reason, "no");
    break;
  case MSG_CONFIG:
    m.u.config.iasp = 1;
    m.u.config.size = 4096;
    break;
  case MSG_MIRROR_START:
    m.u.mirror_start.node = 4;
    m.u.mirror_start.sync = SYNC_FULL;
    break;
  case MSG_RELEASED:
    m.u.released = (struct msg_released) { 2, 6 };
    break;
  case MSG_ROUND:
    m.u.round = 3;
    break;
  case MSG_REPORT:
    m.u.report.bytes = blob;
    m.u.report.len = sizeof blob;
    break;
  case MSG_REQUEST:
  case MSG_REPLY:
    m.u.request.iasp = 2;
    m.u.request.request_id = 8;
    strcpy (m.u.request.reason, "fine");
    break;
  }
}

static void
round_trip (uint8_t type)
{
  size_t n;
  bool cut = true, flip = true;

  fill (type);
  n = msg_encode (&m, buf, sizeof buf);
  ok (n > 0 && msg_decode (&d, buf, n) == 0 && d.h.type == type && d.h.view == 77
        && d.h.incarnation == 12345 && msg_encode (&d, buf2, sizeof buf2) == n
        && memcmp (buf, buf2, n) == 0,
      "%s: round trip of %zu bytes", msg_name (type), n);
  for (size_t len = 0; len < n; len++)
    cut = cut && msg_decode (&d, buf, len) < 0 && msg_encode (&m, buf2, len) == 0;
  cut = cut && msg_decode (&d, buf, n + 1) < 0;
  ok (cut, "%s: every truncation, and a byte too many, is refused", msg_name (type));
  for (size_t bit = 0; bit < n * 8; bit++) {
    buf[bit / 8] ^= (uint8_t) (1u << (bit % 8));
    if (msg_decode (&d, buf, n) == 0)
      flip = flip && msg_encode (&d, buf2, sizeof buf2) > 0;
    buf[bit / 8] ^= (uint8_t) (1u << (bit % 8));
  }
  ok (flip, "%s: every flipped bit is survived", msg_name (type));
}

static void
rubbish (void)
{
  struct group_config cfg = { .node_id = 1, .incarnation = 1, .token_ms = 1000, .lease_ms = 3000,
                              .start_wait_ms = 1000 };
  struct group_event ev = { .kind = GE_VIEW, .now_ms = 10, .view = 77, .members = { 1, 3 },
                            .n_members = 2 };
  uint32_t rng = 1;

  group_init (&g, &cfg, NULL, 0, 1);
  group_step (&g, &ev, &out);
  ev = (struct group_event) { .kind = GE_MSG, .from = 3, .buf = buf };
  for (unsigned i = 0; i < 20000; i++) {
    /* A valid message with a few wild bytes; some are decodable. */
    fill ((uint8_t) (1 + i % (MSG_TYPE_END - 1)));
    ev.len = msg_encode (&m, buf, sizeof buf);
    for (unsigned k = 0; k < i % 5; k++) {
      rng = rng * 1103515245u + 12345u;
      buf[(rng >> 8) % ev.len] = (uint8_t) (rng >> 24);
    }
    ev.now_ms++;
    group_step (&g, &ev, &out);
  }
  ok (g.counters.bad_messages > 1000, "a core counts what it can't decode: %llu",
      (unsigned long long) g.counters.bad_messages);
  ok (g.counters.dropped > 100, "H5: and drops what is of another view: %llu",
      (unsigned long long) g.counters.dropped);
  ok (!g.has_state && !g.has_committed, "C6: a wild GROUP-STATE is no state");
  fill (MSG_ALIVE);
  ev.len = msg_encode (&m, buf, sizeof buf);
  ev.from = 1;
  uint64_t before = g.counters.bad_messages;
  group_step (&g, &ev, &out);
  ok (g.counters.bad_messages == before + 1, "a sender other than the engine's is refused");
  before = g.counters.illegal;
  ev = (struct group_event) { .kind = (enum group_event_kind) 99 };
  group_step (&g, &ev, &out);
  ev = (struct group_event) { .kind = GE_HOSTED, .iasp = 200 };
  group_step (&g, &ev, &out);
  ev = (struct group_event) { .kind = GE_COPY_LOST, .iasp = 0, .site = 200 };
  group_step (&g, &ev, &out);
  ev = (struct group_event) { .kind = GE_REPORT, .buf = buf, .len = GROUP_REPORT_MAX + 1 };
  group_step (&g, &ev, &out);
  ev = (struct group_event) { .kind = GE_DRAINED };
  group_step (&g, &ev, &out);
  ok (g.counters.illegal == before + 5, "illegal events are counted and ignored");
}

static bool
is_refused (void)
{
  size_t n = msg_encode (&m, buf, sizeof buf);

  return n > 0 && msg_decode (&d, buf, n) < 0;
}

/* What no member sends. */
static void
senseless (void)
{
  size_t n;

  ok (strcmp (msg_name (0), "unknown") == 0 && strcmp (msg_name (MSG_TYPE_END), "unknown") == 0
        && strcmp (msg_name (255), "unknown") == 0, "a type that is none has no name");
  fill (MSG_ALIVE);
  m.h.sender = NO_NODE;
  ok (is_refused (), "refused: nobody's message");
  fill (MSG_ALIVE);
  m.h.incarnation = 0;
  ok (is_refused (), "refused: no incarnation");
  fill (MSG_TYPE_END);
  is (msg_encode (&m, buf, sizeof buf), 0, "an unknown type has no bytes");
  fill (MSG_ALIVE);
  n = msg_encode (&m, buf, sizeof buf);
  buf[5] = MSG_TYPE_END;
  ok (n > 0 && msg_decode (&d, buf, n) < 0, "refused: an unknown type");
  buf[5] = 0;
  ok (msg_decode (&d, buf, n) < 0, "refused: no type");
  /* A count beyond its array: not read past by the encoder, and refused by the decoder. */
  fill (MSG_ANSWER);
  m.u.answer.n_past = CRG_MAX_PAST + 1;
  ok (is_refused (), "refused: too many lineages");
  fill (MSG_START);
  m.u.start.n = CRG_MAX_NODES + 1;
  ok (is_refused (), "refused: too many members");
  fill (MSG_PERSISTED);
  m.u.persisted.n_units = CRG_MAX_IASPS + 1;
  ok (is_refused (), "refused: too many units");
  fill (MSG_PERSISTED);
  m.u.persisted.longest_ms = LEASE_HOLD_MAX_MS + 1;
  ok (is_refused (), "refused: a lease that nobody can have granted");
  fill (MSG_RENEW);
  m.u.renew.lease_ms = LEASE_MAX_MS + 1;
  ok (is_refused (), "refused: a lease longer than any");
  fill (MSG_ANNOUNCE);
  m.u.announce.n_iasps = CRG_MAX_IASPS + 1;
  ok (is_refused (), "refused: too many IASPs");
  fill (MSG_ANNOUNCE);
  m.u.announce.iasp[1].role = HOST_ROLE_END;
  ok (is_refused (), "refused: a role that is none");
}

int
main (void)
{
  senseless ();
  for (uint8_t type = 1; type < MSG_TYPE_END; type++)
    round_trip (type);
  rubbish ();
  return tap_done ();
}
