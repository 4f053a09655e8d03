/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plugin/digest.c and its callers for crgsim: the resync's digests of the own store, and those that a
 * copy is asked for.  Half of the worlds are of a release that doesn't know them.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

bool
digests_known (void)
{
  return w.mix.zero_percent % 2 == 0;
}

static bool
start (struct wplugin *p, uint32_t conn, uint64_t seq, uint64_t offset, uint64_t length)
{
  for (unsigned i = 0; i < DIGEST_MAX_JOBS; i++)
    if (!p->digest[i].used) {
      p->digest[i].used = true;
      p->digest[i].conn = conn;
      p->digest[i].seq = seq;
      disk_op (p, DW_READ, DF_DIGEST, i, offset, length, false);
      p->busy_digest++;
      return true;
    }
  return false;
}

void
digests_own (struct wplugin *p, const struct repl_action *a)
{
  struct repl_event ev = { .kind = RE_DIGEST, .site = p->site, .seq = a->no, .error = -EAGAIN };

  if (!start (p, 0, a->no, a->offset, a->length))
    prod_feed (p, &ev);
}

void
digests_asked (struct wplugin *p, struct wconn *c, const struct wire_header *h)
{
  const struct wire_digest_req q = { .algorithm = WIRE_DIGEST_SHA256, .block_size = W_BLOCK };
  const char *why = verify_request_refusal (h, &q, W_SIZE);

  if (why)
    world_fail ("n%u: a question that a copy refuses: %s", p->node + 1, why);
  else
    (void) start (p, c->id, h->seq, h->offset, h->length); /* else there is no answer */
}

static unsigned
make (const struct wplugin *p, const struct dop *d, uint8_t digests[][WIRE_DIGEST_LEN], bool *hole)
{
  const struct wdisk *disk = &w.disk[p->site][p->iasp];
  unsigned n = 0;

  *hole = true;
  for (uint64_t at = d->offset; at < d->offset + d->length; at += W_BLOCK, n++) {
    uint64_t h[2] = { 0xcbf29ce484222325u, 0x9e3779b97f4a7c15u };

    for (uint64_t i = at / W_UNIT; i < (at + W_BLOCK) / W_UNIT && i < (d->offset + d->length) / W_UNIT; i++) {
      const uint64_t v = disk->cur[i];

      *hole = *hole && (v == 0 || (v & W_ZERO));
      h[0] = (h[0] ^ v) * 0x100000001b3u;
      h[1] = (h[1] ^ (v + 1)) * 0x100000001b5u;
    }
    memcpy (digests[n], h, sizeof h);
  }
  return n;
}

void
digests_done (struct wplugin *p, const struct dop *d, int error)
{
  uint8_t digests[VERIFY_BLOCKS][WIRE_DIGEST_LEN];
  bool hole;
  const unsigned n = make (p, d, digests, &hole);
  const uint32_t conn = p->digest[d->index].conn;
  struct repl_event ev = { .kind = RE_DIGEST, .site = p->site, .seq = p->digest[d->index].seq, .error = error,
                           .map = digests[0], .length = n, .zero = hole ? RZ_HOLE : RZ_DATA };
  struct wire_header h = { .type = WIRE_DIGEST, .seq = ev.seq, .offset = d->offset, .length = (uint32_t) d->length };
  struct wconn *c = conn != 0 ? net_conn (conn) : NULL;
  struct wframe *f;
  unsigned index;

  p->digest[d->index].used = false;
  p->busy_digest--;
  if (conn == 0) {
    if (p->prod_on)
      prod_feed (p, &ev);
    return;
  }
  if (c == NULL || !p->copy_on || !c->copy_open || c->copy_life != p->life || c->copy != p->node)
    return;
  if (!w.healing && mix_hash (w.now_us, ev.seq) % 16 == 0)
    error = -EIO; /* a bad sector, for once */
  h.tenure = c->copy_tenure;
  h.flags = error ? WIRE_F_FAILED : 0;
  h.payload_len = error ? 0 : n * WIRE_DIGEST_LEN;
  f = net_frame (&h, &index);
  memcpy (f->control, digests, h.payload_len);
  net_send (c, false, index);
}
