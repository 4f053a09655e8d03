/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Frames of the corosync engine: round trip, refusal of everything that breaks
 * a rule, reassembly.
 */
#include <config.h>

#include "server/cpg_frame.h"

#include "tests/tap.h"

static uint8_t buf[CPG_FRAME_HEADER_LEN + CRG_ENGINE_MSG_MAX + 1];

static size_t
encode (const struct cpg_frame *f)
{
  cpg_frame_encode (f, buf);
  return CPG_FRAME_HEADER_LEN + f->len;
}

static void
test_round_trip (void)
{
  struct cpg_frame v = { .kind = CPG_FRAME_VIEW, .view = 77, .ring_seq = 1ull << 40,
                         .ring_node = 3 };
  struct cpg_frame d = { .kind = CPG_FRAME_DATA, .view = ~0ull, .seq = 9, .total = 100,
                         .offset = 60, .len = 40 };
  struct cpg_frame out;
  size_t n = encode (&v);

  ok (cpg_frame_decode (buf, n, &out) && out.kind == CPG_FRAME_VIEW && out.view == 77
        && out.ring_seq == 1ull << 40 && out.ring_node == 3 && out.len == 0,
      "a VIEW frame comes back");
  n = encode (&d);
  ok (cpg_frame_decode (buf, n, &out) && out.view == ~0ull && out.seq == 9 && out.total == 100
        && out.offset == 60 && out.len == 40 && out.payload == buf + CPG_FRAME_HEADER_LEN,
      "a DATA frame comes back");
  d = (struct cpg_frame){ .kind = CPG_FRAME_DATA, .view = 1, .seq = 1 };
  n = encode (&d);
  ok (cpg_frame_decode (buf, n, &out) && out.total == 0, "an empty message is one frame");
  d = (struct cpg_frame){ .kind = CPG_FRAME_DATA, .view = 1, .seq = 1,
                          .total = CRG_ENGINE_MSG_MAX, .len = CRG_ENGINE_MSG_MAX };
  n = encode (&d);
  ok (cpg_frame_decode (buf, n, &out), "the largest message fits one frame");
}

static void
refused (struct cpg_frame f, int delta, const char *what)
{
  struct cpg_frame out;
  size_t n = encode (&f);

  ok (!cpg_frame_decode (buf, (size_t) ((long) n + delta), &out), "refused: %s", what);
}

static void
test_refused (void)
{
  struct cpg_frame d = { .kind = CPG_FRAME_DATA, .view = 5, .seq = 1, .total = 10, .len = 10 };
  struct cpg_frame v = { .kind = CPG_FRAME_VIEW, .view = 5, .ring_seq = 4, .ring_node = 1 };
  struct cpg_frame f, out;
  unsigned taken = 0;
  size_t n;

#define REFUSED(base, change, what) do { f = base; f.change; refused (f, 0, what); } while (0)
  REFUSED (d, view = 0, "view 0");
  REFUSED (d, kind = 0, "kind 0");
  REFUSED (d, kind = CPG_FRAME_KIND_END, "an unknown kind");
  REFUSED (d, total = 9, "more than the total");
  REFUSED (d, offset = 1, "a piece beyond the end");
  REFUSED (d, offset = 11, "an offset beyond the end");
  REFUSED (d, offset = UINT32_MAX, "an offset that wraps");
  REFUSED (d, total = CRG_ENGINE_MSG_MAX + 1, "a message over the limit");
  REFUSED (d, len = 0, "an empty piece");
  REFUSED (d, ring_seq = 1, "DATA with a ring");
  REFUSED (d, ring_node = 1, "DATA with a ring's node");
  REFUSED (v, seq = 1, "VIEW with a message's number");
  REFUSED (v, offset = 1, "VIEW with an offset");
  REFUSED (v, len = 1, "VIEW with a payload");
  REFUSED (v, total = 1, "VIEW with a length");
  refused (v, -1, "a short header");
  refused (d, CRG_ENGINE_MSG_MAX, "a frame over the limit");
  ok (!cpg_frame_decode (buf, 0, &out), "refused: nothing");

  n = encode (&v);
  buf[28] = 1;
  ok (!cpg_frame_decode (buf, n, &out), "refused: a byte of the second reserve");

  /* No byte of the fixed part may change unseen. */
  for (unsigned i = 0; i < 8; i++) {
    n = encode (&v);
    buf[i] ^= 0x80;
    taken += cpg_frame_decode (buf, n, &out);
  }
  is (taken, 0, "each damaged byte of magic, version, kind and reserve is refused");
}

static void
test_reassembly (void)
{
  struct cpg_partial p = { 0 };
  struct cpg_frame f = { .kind = CPG_FRAME_DATA, .view = 1, .seq = 7, .total = 10, .len = 4 };

  is (cpg_partial_step (&p, &f), CPG_PIECE_FIRST, "first piece");
  f.offset = 4;
  is (cpg_partial_step (&p, &f), CPG_PIECE_NEXT, "next piece");
  f.offset = 8;
  f.len = 2;
  is (cpg_partial_step (&p, &f), CPG_PIECE_LAST, "last piece");
  is (cpg_partial_step (&p, &f), CPG_PIECE_STRAY, "a piece after the end");
  f.offset = 0;
  f.len = 10;
  is (cpg_partial_step (&p, &f), CPG_PIECE_WHOLE, "a whole message");
  f.len = 4;
  cpg_partial_step (&p, &f);
  f.offset = 5;
  is (cpg_partial_step (&p, &f), CPG_PIECE_STRAY, "a gap");
  f.offset = 4;
  is (cpg_partial_step (&p, &f), CPG_PIECE_STRAY, "what follows a gap");
  f.offset = 0;
  cpg_partial_step (&p, &f);
  f.offset = 4;
  f.seq = 8;
  is (cpg_partial_step (&p, &f), CPG_PIECE_STRAY, "a piece of another message");
  f.offset = 0;
  cpg_partial_step (&p, &f);
  f.offset = 4;
  f.total = 11;
  is (cpg_partial_step (&p, &f), CPG_PIECE_STRAY, "a total that changes");
  f.offset = 0;
  f.total = 10;
  cpg_partial_step (&p, &f);
  is (cpg_partial_step (&p, &f), CPG_PIECE_STRAY, "a beginning within a message");
  is (cpg_partial_step (&p, &f), CPG_PIECE_FIRST, "and then all is well again");
}

int
main (void)
{
  test_round_trip ();
  test_refused ();
  test_reassembly ();
  return tap_done ();
}
