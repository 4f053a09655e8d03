/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Frames that wait for corosync.  See cpg_queue.h.  Main loop's thread only.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/cpg_queue.h"

#include "common/util.h"

void
cpg_queue_init (struct cpg_queue *q)
{
  memset (q, 0, sizeof *q);
  qb_list_init (&q->frames);
}

struct cpg_queued *
cpg_queue_first (struct cpg_queue *q)
{
  if (q->n == 0)
    return NULL;
  return qb_list_first_entry (&q->frames, struct cpg_queued, list);
}

static struct cpg_queued *
take (struct cpg_queue *q)
{
  struct cpg_queued *f = qb_list_first_entry (&q->frames, struct cpg_queued, list);

  assert (q->n > 0);
  qb_list_del (&f->list);
  q->n--;
  q->bytes -= f->len;
  return f;
}

void
cpg_queue_pop (struct cpg_queue *q)
{
  free (take (q));
}

void
cpg_queue_clear (struct cpg_queue *q)
{
  while (q->n > 0)
    cpg_queue_pop (q);
}

static struct cpg_queued *
make (const struct cpg_frame *h)
{
  struct cpg_queued *f = malloc (sizeof *f + CPG_FRAME_HEADER_LEN + h->len);

  if (f == NULL)
    return NULL;
  f->last = h->kind == CPG_FRAME_DATA && h->offset + h->len == h->total;
  f->len = CPG_FRAME_HEADER_LEN + h->len;
  cpg_frame_encode (h, f->bytes);
  if (h->len)
    memcpy (f->bytes + CPG_FRAME_HEADER_LEN, h->payload, h->len);
  return f;
}

static void
append (struct cpg_queue *q, struct cpg_queued *f)
{
  qb_list_add_tail (&f->list, &q->frames);
  q->n++;
  q->bytes += f->len;
  q->peak_bytes = MAX (q->peak_bytes, q->bytes);
}

int
cpg_queue_put (struct cpg_queue *q, const struct cpg_frame *f)
{
  struct cpg_queued *queued = make (f);

  if (queued == NULL)
    return -ENOMEM;
  append (q, queued);
  return 0;
}

int
cpg_queue_put_message (struct cpg_queue *q, uint64_t view, uint64_t seq, const uint8_t *buf,
                       size_t len)
{
  struct cpg_frame h = { .kind = CPG_FRAME_DATA, .view = view, .seq = seq };
  struct cpg_queue whole;

  if (len > CRG_ENGINE_MSG_MAX)
    return -EMSGSIZE;
  if (q->n >= CRG_ENGINE_QUEUE_MAX || (q->n > 0 && q->bytes + len > COROSYNC_QUEUE_BYTES))
    return -ENOBUFS;
  h.total = (uint32_t) len;
  cpg_queue_init (&whole);
  do {
    h.payload = buf + h.offset;
    h.len = MIN (h.total - h.offset, COROSYNC_PIECE);
    if (cpg_queue_put (&whole, &h) < 0) {
      cpg_queue_clear (&whole);
      return -ENOMEM;
    }
    h.offset += h.len;
  } while (h.offset < h.total);
  while (whole.n > 0)
    append (q, take (&whole));
  return 0;
}
