/* SPDX-License-Identifier: BSD-3-Clause */
/* The world of sim-repl: randomness, calendar, what is on its way, and the maps on the disks; see mirror.h.
 */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/mirror.h"
#include "tests/sim/calendar.h"

struct mirror_world w;
bool verbose, broken;
uint64_t seed;
char broken_why[256];

static uint64_t rng;

void
rnd_begin (uint64_t which)
{
  rng = which * 0x9e3779b97f4a7c15u + 1;
  for (unsigned i = 0; i < 5; i++)
    rnd (2);
}

uint64_t
rnd (uint64_t n)
{
  rng ^= rng << 13;
  rng ^= rng >> 7;
  rng ^= rng << 17;
  return n ? (rng >> 11) % n : 0;
}

bool
chance (unsigned percent)
{
  return rnd (100) < percent;
}

void
lose_cache (struct site *x)
{
  for (unsigned i = 0; i < UNITS; i++)
    if (x->disk.cur[i] != x->disk.stable[i]) {
      if (chance (60))
        x->disk.cur[i] = x->disk.stable[i];
      else
        x->disk.stable[i] = x->disk.cur[i];
    }
}

void UTIL_PRINTF (1, 2)
violate (const char *fmt, ...)
{
  va_list ap;

  if (broken)
    return;
  broken = true;
  va_start (ap, fmt);
  vsnprintf (broken_why, sizeof broken_why, fmt, ap);
  va_end (ap);
}

void UTIL_PRINTF (1, 2)
say (const char *fmt, ...)
{
  va_list ap;

  if (!verbose)
    return;
  printf ("# %6llu ", (unsigned long long) w.now);
  va_start (ap, fmt);
  vprintf (fmt, ap);
  va_end (ap);
  printf ("\n");
}

CALENDAR (sev)

struct sev *
after (uint64_t ms, enum sev_kind kind)
{
  static struct sev dummy;
  struct sev e = { .at = w.now + ms, .order = ++w.order, .kind = (uint8_t) kind,
                   .life = w.prod_life };

  if (w.n_heap == EVENTS) {
    violate ("the simulator's calendar is full");
    return &dummy;
  }
  return calendar_add (w.heap, &w.n_heap, e);
}

struct sev
next_event (void)
{
  return calendar_take (w.heap, &w.n_heap);
}

struct msg *
new_msg (void)
{
  struct msg *m = calloc (1, sizeof *m);
  if (m == NULL)
    abort ();
  return m;
}

void
free_msg (struct msg *m)
{
  if (m) {
    free (m->data);
    free (m->map);
    free (m->look);
  }
  free (m);
}

void
fifo_push (struct fifo *f, struct msg *m)
{
  if (f->n == FRAMES) {
    violate ("a link holds more frames than any window");
    free_msg (m);
    return;
  }
  f->m[(f->head + f->n++) % FRAMES] = m;
}

struct msg *
fifo_pop (struct fifo *f)
{
  struct msg *m = f->m[f->head];
  f->head = (f->head + 1) % FRAMES;
  f->n--;
  return m;
}

void
fifo_clear (struct fifo *f)
{
  while (f->n > 0)
    free_msg (fifo_pop (f));
}

stamp_t *
units_dup (const stamp_t *src, unsigned n)
{
  stamp_t *p = malloc (n * sizeof *p + 1);
  if (p == NULL)
    abort ();
  memcpy (p, src, n * sizeof *p);
  return p;
}

/* --- maps --------------------------------------------------------------------------------------- */

void
begin_stage (unsigned s, struct mark *m, uint32_t life)
{
  struct stage *g = calloc (1, sizeof *g);
  struct sev *e;

  if (w.site[s].stage)
    violate ("site %u: two stages at a time", s);
  while (mark_next (m, &g->block[g->n].b)) {
    memcpy (g->block[g->n].payload, g->block[g->n].b.payload, META_BLOCK_PAYLOAD);
    if (++g->n == 3 + SITES_MAX)
      break;
  }
  w.site[s].stage = g;
  e = after (rnd (1 + w.site[s].slow), SE_MARK);
  e->site = (uint8_t) s;
  e->life = life;
}

static void
write_block (struct maps *d, const struct mark_block *b, const uint8_t *payload, bool bad)
{
  uint8_t *to = b->kind == META_HOT ? d->hot[b->copy] : b->kind == META_WRITTEN ? d->written : d->bits[b->site];

  memcpy (to, payload, META_BLOCK_PAYLOAD);
  *(b->kind == META_HOT       ? &d->bad_hot[b->copy]
    : b->kind == META_WRITTEN ? &d->bad_written
                              : &d->bad_bits[b->site])
    = bad;
}

/* Whoever writes this unit has its marks on the disk. */
void
check_hot (unsigned s, unsigned unit)
{
  const struct maps *m = &w.site[s].maps;
  const uint64_t hot = (uint64_t) unit * UNIT / w.region, block = (uint64_t) unit * UNIT / BLOCK;

  if (!w.track)
    return;
  if (!map_bit (m->hot[0], m->bad_hot[0], hot) || !map_bit (m->hot[1], m->bad_hot[1], hot))
    violate ("site %u writes unit %u, which is not hot on its disk", s, unit);
  if (w.site[s].written && !map_bit (m->written, m->bad_written, block))
    violate ("site %u writes unit %u, which its disk does not have as written", s, unit);
}

void
relabel (unsigned s, unsigned unit, stamp_t stamp)
{
  struct disk *d = &w.site[s].disk;

  if (is_damaged (s, unit))
    return;
  if ((d->cur[unit] != 0 && !(d->cur[unit] & ZERO_BIT)) || (d->stable[unit] != 0 && !(d->stable[unit] & ZERO_BIT)))
    violate ("site %u calls unit %u never written, and it has %u, stable %u", s, unit, d->cur[unit], d->stable[unit]);
  d->cur[unit] = d->stable[unit] = stamp;
}

/* die: any of its blocks are there; power: one may be torn, if the sector is not atomic. */
void
end_stage (unsigned s, bool die, bool power)
{
  struct site *x = &w.site[s];

  if (x->stage == NULL)
    return;
  for (unsigned i = 0; i < x->stage->n; i++)
    if (!die || chance (50))
      write_block (&x->maps, &x->stage->block[i].b, x->stage->block[i].payload, die && power && i == 0 && chance (10));
  free (x->stage);
  x->stage = NULL;
}

void
load_marks (unsigned s, struct mark *m, uint8_t *memory, unsigned entries)
{
  const struct maps *d = &w.site[s].maps;

  memset (memory, 0, mark_memory_bytes (SIZE, BLOCK, w.region, entries, w.n_sites));
  mark_init (m, memory, SIZE, BLOCK, w.region, entries, w.n_sites);
  if (!d->bad_hot[0] || !d->bad_hot[1]) /* which of two is newer does not matter much: both are safe */
    mark_load_hot (m, 0, d->bad_hot[0] ? d->hot[1] : d->hot[0],
                   !d->bad_hot[0] && !d->bad_hot[1] && memcmp (d->hot[0], d->hot[1], META_BLOCK_PAYLOAD) == 0);
  else
    mark_load_hot (m, 0, NULL, false);
  for (unsigned k = 0; k < w.n_sites; k++)
    mark_load_bits (m, k, 0, d->bad_bits[k] ? NULL : d->bits[k]);
  if (w.site[s].written) {
    memset (w.site[s].written_memory, 0, bits_memory_bytes (m->bits[0].n_bits));
    mark_use_written (m, w.site[s].written_memory);
    mark_load_written (m, 0, d->bad_written ? NULL : d->written);
    mark_loaded (m);
  }
}
