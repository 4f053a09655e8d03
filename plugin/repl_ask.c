/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core, sixth part: what is only in doubt is asked for by digest before it is sent.
 * Pure; called by repl_resync.c and repl.c alone.
 *
 * D1  A block is equal if its digest on the copy is that of production, both made while it was ASKED:
 *     no write of it was under way when it was asked for, and each later one was either sent to the copy
 *     too, or has taken the block out of that state.  So no lock is held: what is written meanwhile on
 *     both sides ends up as the same, whatever of it the digests have seen.
 * D2  What is equal counts as sent: it is clean when a flush of the copy is confirmed that was asked for
 *     behind the answer.  The copy may have it in a cache.
 * D3  No answer, or one that can't be used, says nothing: the blocks are sent.
 *
 * It must never make a block clean.
 */
#include <assert.h>
#include <string.h>

#include "plugin/repl_private.h"

#define ASK_BYTES (WIRE_HEADER_LEN + WIRE_DIGEST_REQ_LEN)

bool
ask_wanted (const struct repl *r, unsigned site)
{
  const struct repl_site *x = &r->sites[site];

  /* Where production has holes they are passed faster than digests.  One question finds out whether
   * asking pays again, while what follows is sent. */
  return x->digests && x->ask_left == 0 && x->hole_run == 1 && (x->ask_pause == 0 || x->n_asks == 0);
}

uint64_t
ask_max (const struct repl *r)
{
  return verify_range_bytes (r->cfg.block_size) / r->cfg.block_size;
}

static uint64_t
bytes_of (const struct repl *r, struct track_range run)
{
  const uint64_t offset = run.first * r->cfg.block_size, bytes = run.n * r->cfg.block_size;

  return bytes < r->cfg.size - offset ? bytes : r->cfg.size - offset;
}

bool
ask_overlaps (const struct repl *r, unsigned site, struct track_range run)
{
  for (unsigned i = 0; i < REPL_MAX_ASKS; i++) {
    const struct repl_ask *q = &r->asks[i];
    if (q->on && q->site == site && q->run.first < run.first + run.n && run.first < q->run.first + q->run.n)
      return true;
  }
  return false;
}

/* How many of the first blocks no granted write touches (D1). */
static uint64_t
untouched (const struct repl *r, struct track_range run)
{
  const uint64_t offset = run.first * r->cfg.block_size;
  uint64_t n = run.n;

  for (unsigned i = r->first; i != REPL_NONE && n > 0; i = r->slots[i].next) {
    const struct repl_slot *s = &r->slots[i];
    if ((s->state == SL_ACTIVE || s->state == SL_DONE) && op_is_data (s->op)
        && ranges_overlap (offset, n * r->cfg.block_size, s->offset, s->length))
      n = s->offset <= offset ? 0 : (s->offset - offset) / r->cfg.block_size;
  }
  return n;
}

bool
ask_start (struct repl *r, unsigned site, struct track_range run, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];
  struct repl_ask *q = NULL;
  struct repl_action *a;

  for (unsigned i = 0; i < REPL_MAX_ASKS && !q; i++)
    if (!r->asks[i].on)
      q = &r->asks[i];
  run.n = untouched (r, run);
  /* What was never written is sent without having been read. */
  if (!q || run.n == 0 || mark_unwritten (r->cfg.mark, run.first * r->cfg.block_size, 1) > 0)
    return false;
  *q = (struct repl_ask) { .on = true, .site = (uint8_t) site, .run = run, .tag = ++r->tag, .since_ms = r->now_ms };
  x->n_asks++;
  r->n_asks++;
  r->counters.asks++;
  track_ask (&x->track, run);
  x->track.cursor = run.first + run.n;
  a = act (out, RA_DIGEST_REQ);
  a->site = q->site;
  a->frame.type = WIRE_DIGEST_REQ;
  a->frame.seq = q->tag;
  a->frame.offset = run.first * r->cfg.block_size;
  a->frame.length = (uint32_t) bytes_of (r, run);
  a->frame.payload_len = WIRE_DIGEST_REQ_LEN;
  x->room -= ASK_BYTES < x->room ? ASK_BYTES : x->room;
  a = act (out, RA_DIGEST);
  a->no = q->tag;
  a->offset = run.first * r->cfg.block_size;
  a->length = bytes_of (r, run);
  return true;
}

/* Does asking pay? */
static void
learn (struct repl_site *x, uint64_t asked, uint64_t equal)
{
  if (equal * 4 >= asked)
    x->ask_pause = 0;
  else if (x->ask_pause == 0)
    x->ask_pause = REPL_ASK_PAUSE;
  else if (x->ask_pause < REPL_ASK_PAUSE_MAX)
    x->ask_pause *= 2;
  x->ask_left = x->ask_pause;
}

/* The other side's digests; NULL: one of the two has none (D3). */
static void
judge (struct repl *r, struct repl_ask *q, const uint8_t *other)
{
  struct repl_site *x = &r->sites[q->site];
  uint64_t equal = 0, asked = 0;

  for (uint64_t k = 0; k < q->run.n; k++) {
    const struct track_range block = { q->run.first + k, 1 };

    if (track_get (&x->track, block.first) != TS_ASKED) /* D1: written, or marked, meanwhile */
      continue;
    asked++;
    if (other && track_can_send (&x->track)
        && memcmp (q->digests[k], other + k * WIRE_DIGEST_LEN, WIRE_DIGEST_LEN) == 0) {
      equal++;
      x->equal_bytes += bytes_of (r, block);
      track_resync_sent (&x->track, block); /* D2 */
      continue;
    }
    track_mark (&x->track, block.first * r->cfg.block_size, bytes_of (r, block));
    if (x->track.cursor > block.first)
      x->track.cursor = block.first;
  }
  learn (x, asked, equal);
  q->on = false;
  x->n_asks--;
  r->n_asks--;
}

bool
ask_answered (struct repl *r, const struct repl_event *ev)
{
  const uint8_t who = ev->site == r->cfg.site ? 1 : 2;

  for (unsigned i = 0; i < REPL_MAX_ASKS && r->n_asks > 0; i++) {
    struct repl_ask *q = &r->asks[i];

    if (!q->on || q->tag != ev->seq || (who == 2 && q->site != ev->site) || q->heard == who)
      continue;
    if (who == 1 && ev->zero == RZ_HOLE)
      r->sites[q->site].hole_run = 4 * ask_max (r);
    if (ev->error != 0 || ev->map == NULL || ev->length != q->run.n)
      judge (r, q, NULL);
    else if (q->heard != 0)
      judge (r, q, ev->map);
    else {
      q->heard = who;
      memcpy (q->digests, ev->map, q->run.n * WIRE_DIGEST_LEN);
    }
    return true;
  }
  return false;
}

/* The link is gone. */
void
ask_cancel (struct repl *r, unsigned site)
{
  struct track *t = &r->sites[site].track;

  for (unsigned i = 0; i < REPL_MAX_ASKS; i++) {
    struct repl_ask *q = &r->asks[i];

    if (!q->on || q->site != site)
      continue;
    for (uint64_t b = q->run.first; b < q->run.first + q->run.n; b++)
      if (track_get (t, b) == TS_ASKED)
        track_doubt (t, b * r->cfg.block_size, bytes_of (r, (struct track_range) { b, 1 }));
    q->on = false;
    r->n_asks--;
  }
  r->sites[site].n_asks = 0;
}

/* Reads may wait for what is asked for (D3). */
void
ask_pump (struct repl *r)
{
  for (unsigned i = 0; i < REPL_MAX_ASKS && r->n_asks > 0; i++)
    if (r->asks[i].on && r->now_ms - r->asks[i].since_ms >= REPL_ASK_MS)
      judge (r, &r->asks[i], NULL);
}
