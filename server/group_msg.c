/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The codec of the group's messages; see group_msg.h.  Pure: no state, no
 * I/O, any thread.
 */
#include <string.h>

#include "common/util.h"
#include "server/bytes.h"
#include "server/group_msg.h"

static const char *const names[MSG_TYPE_END] = {
  [MSG_ANSWER] = "ANSWER",       [MSG_START] = "START",
  [MSG_PROMISED] = "PROMISED",   [MSG_GROUP_STATE] = "GROUP-STATE",
  [MSG_PERSISTED] = "PERSISTED", [MSG_CHANGE] = "CHANGE",
  [MSG_RENEW] = "RENEW",         [MSG_RENEWED] = "RENEWED",
  [MSG_ANNOUNCE] = "ANNOUNCE",   [MSG_CONFIG] = "CONFIG",
  [MSG_MIRROR_START] = "MIRROR-START", [MSG_RELEASED] = "RELEASED",
  [MSG_ALIVE] = "ALIVE",         [MSG_ROUND] = "ROUND",
  [MSG_REPORT] = "REPORT",       [MSG_REQUEST] = "REQUEST",
  [MSG_REPLY] = "REPLY",
};

const char *
msg_name (uint8_t type)
{
  return type > 0 && type < MSG_TYPE_END ? names[type] : "unknown";
}

static void
w_stamp (struct writer *w, struct stamp s)
{
  w_u64 (w, s.epoch);
  w_u64 (w, s.version);
}

static struct stamp
r_stamp (struct reader *r)
{
  struct stamp s;

  s.epoch = r_u64 (r);
  s.version = r_u64 (r);
  return s;
}

static void
encode_store (struct writer *w, const struct store_info *s)
{
  w_u8 (w, s->owned);
  w_u8 (w, s->can_host);
  w_u8 (w, s->has_super);
  w_u8 (w, s->agrees_ids);
  w_u8 (w, s->clean);
  w_u8 (w, s->restarted);
  w_u8 (w, s->unusable);
  w_u8 (w, s->fork);
  w_u64 (w, s->generation);
  w_u64 (w, s->tenure);
  w_bytes (w, s->lineage, CRG_ID_LEN);
  w_bytes (w, s->boot_id, CRG_ID_LEN);
  w_u64 (w, s->size);
}

static void
decode_store (struct reader *r, struct store_info *s)
{
  s->owned = r_bool (r);
  s->can_host = r_bool (r);
  s->has_super = r_bool (r);
  s->agrees_ids = r_bool (r);
  s->clean = r_bool (r);
  s->restarted = r_bool (r);
  s->unusable = r_bool (r);
  s->fork = r_bool (r);
  s->generation = r_u64 (r);
  s->tenure = r_u64 (r);
  r_bytes (r, s->lineage, CRG_ID_LEN);
  r_bytes (r, s->boot_id, CRG_ID_LEN);
  s->size = r_u64 (r);
}

static void
encode_announce (struct writer *w, const struct announce *a)
{
  w_bytes (w, a->boot_id, CRG_ID_LEN);
  w_u8 (w, a->n_iasps);
  for (unsigned i = 0; i < a->n_iasps && i < CRG_MAX_IASPS; i++) {
    const struct group_host_status *h = &a->iasp[i];

    w_u8 (w, h->probed);
    w_u8 (w, h->can_host);
    w_u8 (w, h->role);
    w_u8 (w, h->opened);
    w_u8 (w, h->failed);
    w_u64 (w, h->tenure);
    encode_store (w, &h->store);
    w_str (w, h->reason, CRG_REASON_MAX);
  }
}

static void
decode_announce (struct reader *r, struct announce *a)
{
  memset (a, 0, sizeof *a);
  r_bytes (r, a->boot_id, CRG_ID_LEN);
  a->n_iasps = r_u8 (r);
  if (a->n_iasps > CRG_MAX_IASPS) {
    r->bad = true;
    return;
  }
  for (unsigned i = 0; i < a->n_iasps; i++) {
    struct group_host_status *h = &a->iasp[i];

    h->probed = r_bool (r);
    h->can_host = r_bool (r);
    h->role = r_u8 (r);
    h->opened = r_bool (r);
    h->failed = r_bool (r);
    h->tenure = r_u64 (r);
    decode_store (r, &h->store);
    r_str (r, h->reason, sizeof h->reason);
    if (h->role >= HOST_ROLE_END)
      r->bad = true;
  }
}

static void
encode_request (struct writer *w, const struct msg_request *q)
{
  w_u8 (w, q->request);
  w_u8 (w, q->iasp);
  w_u64 (w, q->request_id);
  w_u32 (w, q->node);
  w_u8 (w, q->dry_run);
  w_u8 (w, q->code);
  w_str (w, q->reason, CRG_REASON_MAX);
}

size_t
msg_encode (const struct msg *m, uint8_t *buf, size_t len)
{
  struct writer w = { buf, len, 0, false };
  size_t n;

  w_u32 (&w, MSG_MAGIC);
  w_u8 (&w, MSG_VERSION);
  w_u8 (&w, m->h.type);
  w_bytes (&w, m->h.lineage, CRG_ID_LEN);
  w_u64 (&w, m->h.view);
  w_u32 (&w, m->h.sender);
  w_u64 (&w, m->h.incarnation);
  w_u64 (&w, m->h.epoch);
  switch (m->h.type) {
  case MSG_ANSWER:
    w_u32 (&w, m->u.answer.round);
    w_u8 (&w, m->u.answer.has_state);
    w_stamp (&w, m->u.answer.stamp);
    w_u64 (&w, m->u.answer.promised);
    w_u8 (&w, m->u.answer.seen_renew);
    w_u32 (&w, m->u.answer.start_wait_ms);
    w_u8 (&w, m->u.answer.n_past);
    for (unsigned i = 0; i < m->u.answer.n_past && i < CRG_MAX_PAST; i++)
      w_bytes (&w, m->u.answer.past[i], CRG_ID_LEN);
    break;
  case MSG_START:
    w_u32 (&w, m->u.start.round);
    w_u64 (&w, m->u.start.epoch);
    w_u8 (&w, m->u.start.n);
    for (unsigned i = 0; i < m->u.start.n && i < CRG_MAX_NODES; i++)
      w_u32 (&w, m->u.start.ids[i]);
    break;
  case MSG_PROMISED:
    w_u32 (&w, m->u.promised.round);
    w_u64 (&w, m->u.promised.epoch);
    w_stamp (&w, m->u.promised.stamp);
    break;
  case MSG_GROUP_STATE:
    w_u32 (&w, m->u.group_state.round);
    w_u64 (&w, m->u.group_state.epoch);
    w_u32 (&w, m->u.group_state.len);
    w_bytes (&w, m->u.group_state.bytes, m->u.group_state.len);
    break;
  case MSG_PERSISTED:
    w_stamp (&w, m->u.persisted.stamp);
    w_u8 (&w, m->u.persisted.n_units);
    for (unsigned i = 0; i < m->u.persisted.n_units && i < CRG_MAX_IASPS; i++)
      w_u32 (&w, m->u.persisted.hold_ms[i]);
    w_u32 (&w, m->u.persisted.longest_ms);
    break;
  case MSG_CHANGE:
    n = w.bad ? 0 : change_encode (&m->u.change, w.p + w.used, w.len - w.used);
    w.bad = w.bad || n == 0;
    w.used += n;
    break;
  case MSG_RENEW:
  case MSG_RENEWED:
    w_u8 (&w, m->u.renew.unit);
    w_u32 (&w, m->u.renew.host);
    w_u64 (&w, m->u.renew.tenure);
    w_u64 (&w, m->u.renew.sent_ms);
    w_u64 (&w, m->u.renew.domain);
    w_u32 (&w, m->u.renew.lease_ms);
    break;
  case MSG_ANNOUNCE:
    encode_announce (&w, &m->u.announce);
    break;
  case MSG_CONFIG:
    w_u8 (&w, m->u.config.iasp);
    w_u8 (&w, m->u.config.site);
    w_u32 (&w, m->u.config.version);
    w_bytes (&w, m->u.config.id, CRG_ID_LEN);
    w_u64 (&w, m->u.config.size);
    w_u32 (&w, m->u.config.dirty_block);
    w_u16 (&w, m->u.config.mirror_port);
    w_u16 (&w, m->u.config.n_text);
    w_bytes (&w, m->u.config.text, MIN (m->u.config.n_text, CRG_CONFIG_MAX));
    break;
  case MSG_MIRROR_START:
    w_u8 (&w, m->u.mirror_start.iasp);
    w_u8 (&w, m->u.mirror_start.site);
    w_u32 (&w, m->u.mirror_start.node);
    w_u64 (&w, m->u.mirror_start.incarnation);
    w_u64 (&w, m->u.mirror_start.tenure);
    w_u64 (&w, m->u.mirror_start.generation);
    w_u8 (&w, m->u.mirror_start.sync);
    break;
  case MSG_RELEASED:
    w_u8 (&w, m->u.released.unit);
    w_u64 (&w, m->u.released.tenure);
    break;
  case MSG_ALIVE:
    break;
  case MSG_ROUND:
    w_u32 (&w, m->u.round);
    break;
  case MSG_REPORT:
    w_u32 (&w, m->u.report.len);
    w_bytes (&w, m->u.report.bytes, m->u.report.len);
    break;
  case MSG_REQUEST:
  case MSG_REPLY:
    encode_request (&w, &m->u.request);
    break;
  default:
    return 0;
  }
  return w.bad ? 0 : w.used;
}

/* A blob that fills the rest of the message. */
static const uint8_t *
r_blob (struct reader *r, uint32_t *len, size_t max)
{
  const uint8_t *p;

  *len = r_u32 (r);
  if (r->bad || *len > max || *len != r->len - r->used) {
    r->bad = true;
    *len = 0;
    return NULL;
  }
  p = r->p + r->used;
  r->used = r->len;
  return p;
}

static void
decode_body (struct reader *r, struct msg *m)
{
  switch (m->h.type) {
  case MSG_ANSWER:
    m->u.answer.round = r_u32 (r);
    m->u.answer.has_state = r_bool (r);
    m->u.answer.stamp = r_stamp (r);
    m->u.answer.promised = r_u64 (r);
    m->u.answer.seen_renew = r_u8 (r);
    m->u.answer.start_wait_ms = r_u32 (r);
    m->u.answer.n_past = r_u8 (r);
    if (m->u.answer.n_past > CRG_MAX_PAST) {
      r->bad = true;
      return;
    }
    for (unsigned i = 0; i < m->u.answer.n_past; i++)
      r_bytes (r, m->u.answer.past[i], CRG_ID_LEN);
    break;
  case MSG_START:
    m->u.start.round = r_u32 (r);
    m->u.start.epoch = r_u64 (r);
    m->u.start.n = r_u8 (r);
    if (m->u.start.n > CRG_MAX_NODES) {
      r->bad = true;
      return;
    }
    for (unsigned i = 0; i < m->u.start.n; i++)
      m->u.start.ids[i] = r_u32 (r);
    break;
  case MSG_PROMISED:
    m->u.promised.round = r_u32 (r);
    m->u.promised.epoch = r_u64 (r);
    m->u.promised.stamp = r_stamp (r);
    break;
  case MSG_GROUP_STATE:
    m->u.group_state.round = r_u32 (r);
    m->u.group_state.epoch = r_u64 (r);
    m->u.group_state.bytes = r_blob (r, &m->u.group_state.len, STATE_ENCODED_MAX);
    break;
  case MSG_PERSISTED:
    m->u.persisted.stamp = r_stamp (r);
    m->u.persisted.n_units = r_u8 (r);
    if (m->u.persisted.n_units > CRG_MAX_IASPS) {
      r->bad = true;
      return;
    }
    for (unsigned i = 0; i < m->u.persisted.n_units; i++)
      m->u.persisted.hold_ms[i] = r_u32 (r);
    m->u.persisted.longest_ms = r_u32 (r);
    if (m->u.persisted.longest_ms > LEASE_HOLD_MAX_MS)
      r->bad = true;
    break;
  case MSG_CHANGE:
    if (change_decode (&m->u.change, r->p + r->used, r->len - r->used) < 0)
      r->bad = true;
    r->used = r->len;
    break;
  case MSG_RENEW:
  case MSG_RENEWED:
    m->u.renew.unit = r_u8 (r);
    if (m->u.renew.unit >= CRG_MAX_IASPS)
      r->bad = true;
    m->u.renew.host = r_u32 (r);
    m->u.renew.tenure = r_u64 (r);
    m->u.renew.sent_ms = r_u64 (r);
    m->u.renew.domain = r_u64 (r);
    m->u.renew.lease_ms = r_u32 (r);
    if (m->u.renew.lease_ms > LEASE_MAX_MS)
      r->bad = true;
    break;
  case MSG_ANNOUNCE:
    decode_announce (r, &m->u.announce);
    break;
  case MSG_CONFIG:
    m->u.config.iasp = r_u8 (r);
    m->u.config.site = r_u8 (r);
    m->u.config.version = r_u32 (r);
    r_bytes (r, m->u.config.id, CRG_ID_LEN);
    m->u.config.size = r_u64 (r);
    m->u.config.dirty_block = r_u32 (r);
    m->u.config.mirror_port = r_u16 (r);
    m->u.config.n_text = r_u16 (r);
    if (m->u.config.n_text > CRG_CONFIG_MAX) {
      r->bad = true;
      return;
    }
    r_bytes (r, m->u.config.text, m->u.config.n_text);
    if (m->u.config.iasp >= CRG_MAX_IASPS || m->u.config.site >= CRG_MAX_SITES)
      r->bad = true;
    break;
  case MSG_MIRROR_START:
    m->u.mirror_start.iasp = r_u8 (r);
    m->u.mirror_start.site = r_u8 (r);
    m->u.mirror_start.node = r_u32 (r);
    m->u.mirror_start.incarnation = r_u64 (r);
    m->u.mirror_start.tenure = r_u64 (r);
    m->u.mirror_start.generation = r_u64 (r);
    m->u.mirror_start.sync = r_u8 (r);
    if (m->u.mirror_start.iasp >= CRG_MAX_IASPS || m->u.mirror_start.site >= CRG_MAX_SITES
        || m->u.mirror_start.sync > SYNC_FULL)
      r->bad = true;
    break;
  case MSG_RELEASED:
    m->u.released.unit = r_u8 (r);
    if (m->u.released.unit >= CRG_MAX_IASPS)
      r->bad = true;
    m->u.released.tenure = r_u64 (r);
    break;
  case MSG_ALIVE:
    break;
  case MSG_ROUND:
    m->u.round = r_u32 (r);
    break;
  case MSG_REPORT:
    m->u.report.bytes = r_blob (r, &m->u.report.len, GROUP_REPORT_MAX);
    break;
  case MSG_REQUEST:
  case MSG_REPLY:
    m->u.request.request = r_u8 (r);
    m->u.request.iasp = r_u8 (r);
    if (m->u.request.iasp >= CRG_MAX_IASPS)
      r->bad = true;
    m->u.request.request_id = r_u64 (r);
    m->u.request.node = r_u32 (r);
    m->u.request.dry_run = r_bool (r);
    m->u.request.code = r_u8 (r);
    r_str (r, m->u.request.reason, sizeof m->u.request.reason);
    break;
  default:
    r->bad = true;
  }
}

int
msg_decode (struct msg *m, const uint8_t *buf, size_t len)
{
  struct reader r = { buf, len, 0, false };

  memset (m, 0, sizeof *m);
  if (r_u32 (&r) != MSG_MAGIC || r_u8 (&r) != MSG_VERSION)
    return -MSG_EBADMSG;
  m->h.type = r_u8 (&r);
  r_bytes (&r, m->h.lineage, CRG_ID_LEN);
  m->h.view = r_u64 (&r);
  m->h.sender = r_u32 (&r);
  m->h.incarnation = r_u64 (&r);
  m->h.epoch = r_u64 (&r);
  if (r.bad || m->h.sender == NO_NODE || m->h.incarnation == 0)
    return -MSG_EBADMSG;
  decode_body (&r, m);
  return r.bad || r.used != len ? -MSG_EBADMSG : 0;
}
