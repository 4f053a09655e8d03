/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group state and its changes as bytes: what travels in GROUP-STATE and
 * CHANGE, and what the daemon keeps on disk (there with a checksum around
 * it).  Field by field, little-endian, with counts and strings bounded by
 * common/limits.h.  Pure; trusts nothing that it reads: a state that decodes
 * has every index and count in range.
 */
#include <string.h>

#include "server/bytes.h"
#include "server/state.h"

#define STATE_MAGIC 0x53475243u /* "CRGS" */
#define STATE_VERSION 5 /* 4: without the generations of past lineages; 3: without those that are gone */

static void
w_id (struct writer *w, const uint8_t id[CRG_ID_LEN])
{
  w_bytes (w, id, CRG_ID_LEN);
}

static void
r_id (struct reader *r, uint8_t id[CRG_ID_LEN])
{
  r_bytes (r, id, CRG_ID_LEN);
}

static void
encode_node (struct writer *w, const struct domain_node *n)
{
  w_u32 (w, n->id);
  w_str (w, n->name, CRG_NAME_MAX);
  w_u8 (w, n->site);
  w_u8 (w, n->preferred_role);
  w_u8 (w, n->votes);
  w_u8 (w, n->new_votes);
  w_u8 (w, n->order);
  w_u8 (w, n->preferred_order);
  w_u8 (w, n->n_addresses);
  for (unsigned i = 0; i < n->n_addresses && i < CRG_MAX_ADDRS; i++)
    w_str (w, n->addresses[i], CRG_ADDR_MAX);
  w_u64 (w, n->expelled);
  w_u8 (w, n->marked_failed);
}

static void
decode_node (struct reader *r, struct domain_node *n)
{
  n->id = r_u32 (r);
  r_str (r, n->name, sizeof n->name);
  n->site = r_u8 (r);
  n->preferred_role = r_u8 (r);
  n->votes = r_u8 (r);
  n->new_votes = r_u8 (r);
  n->order = r_u8 (r);
  n->preferred_order = r_u8 (r);
  n->n_addresses = r_u8 (r);
  if (n->n_addresses > CRG_MAX_ADDRS) {
    r->bad = true;
    return;
  }
  for (unsigned i = 0; i < n->n_addresses; i++)
    r_str (r, n->addresses[i], sizeof n->addresses[i]);
  n->expelled = r_u64 (r);
  n->marked_failed = r_bool (r);
}

static void
encode_iasp (struct writer *w, const struct iasp_def *d, unsigned n_nodes)
{
  w_str (w, d->name, CRG_NAME_MAX);
  w_id (w, d->id);
  w_u8 (w, d->type);
  w_str (w, d->agent, CRG_PATH_MAX);
  w_u32 (w, d->timeout_ms);
  w_u64 (w, d->size);
  w_u32 (w, d->dirty_block);
  w_u16 (w, d->mirror_port);
  w_u8 (w, (uint8_t) (d->tls | d->snapshot << 1)); /* an older release refuses bit 1 */
  w_str (w, d->export, CRG_PATH_MAX);
  for (unsigned i = 0; i < n_nodes; i++) {
    w_str (w, d->store[i], CRG_PATH_MAX);
    w_u8 (w, d->order[i]);
  }
}

static void
decode_iasp (struct reader *r, struct iasp_def *d, unsigned n_nodes)
{
  uint8_t switches;

  r_str (r, d->name, sizeof d->name);
  r_id (r, d->id);
  d->type = r_u8 (r);
  if (d->type > RES_SCRIPT)
    r->bad = true;
  r_str (r, d->agent, sizeof d->agent);
  d->timeout_ms = r_u32 (r);
  d->size = r_u64 (r);
  d->dirty_block = r_u32 (r);
  d->mirror_port = r_u16 (r);
  switches = r_u8 (r);
  if (switches > 3)
    r->bad = true;
  d->tls = switches & 1;
  d->snapshot = switches & 2;
  r_str (r, d->export, sizeof d->export);
  for (unsigned i = 0; i < n_nodes; i++) {
    r_str (r, d->store[i], sizeof d->store[i]);
    d->order[i] = r_u8 (r);
  }
}

static void
encode_rec (struct writer *w, const struct iasp_rec *rec, unsigned n_sites, unsigned n_past)
{
  w_u64 (w, rec->tenure);
  w_u64 (w, rec->generation);
  w_u64 (w, rec->loss);
  w_u8 (w, rec->forced);
  w_u8 (w, rec->production_site);
  for (unsigned i = 0; i < n_past && i < CRG_MAX_PAST; i++)
    w_u64 (w, rec->past_generation[i]);
  for (unsigned i = 0; i < n_sites; i++) {
    const struct copy_rec *c = &rec->copies[i];

    w_u32 (w, c->host);
    w_u8 (w, c->in_set);
    w_u64 (w, c->since);
    w_id (w, c->boot_id);
    w_u8 (w, c->barred);
    w_u8 (w, c->suspended);
    w_u8 (w, c->detached);
    w_u8 (w, c->exported);
    w_u8 (w, c->fork);
    w_u64 (w, c->left_ms);
    w_str (w, c->reason, CRG_REASON_MAX);
  }
}

static void
decode_rec (struct reader *r, struct iasp_rec *rec, unsigned n_sites, unsigned n_past, uint16_t version)
{
  rec->tenure = r_u64 (r);
  rec->generation = r_u64 (r);
  rec->loss = r_u64 (r);
  rec->forced = r_bool (r);
  rec->production_site = r_u8 (r);
  if (rec->production_site >= n_sites)
    r->bad = true;
  for (unsigned i = 0; i < n_past; i++)
    rec->past_generation[i] = version < 5 ? rec->generation : r_u64 (r);
  for (unsigned i = 0; i < n_sites; i++) {
    struct copy_rec *c = &rec->copies[i];

    c->host = r_u32 (r);
    c->in_set = r_bool (r);
    c->since = r_u64 (r);
    r_id (r, c->boot_id);
    c->barred = r_bool (r);
    c->suspended = r_bool (r);
    c->detached = r_bool (r);
    c->exported = r_u8 (r);
    c->fork = r_u8 (r);
    if (c->exported >= DETACHED_END || c->fork >= FORK_END)
      r->bad = true;
    c->left_ms = r_u64 (r);
    r_str (r, c->reason, sizeof c->reason);
  }
}

size_t
state_encode (const struct crg_state *s, uint8_t *buf, size_t len)
{
  struct writer w = { buf, len, 0, false };
  const struct crg_def *d = &s->def;

  w_u32 (&w, STATE_MAGIC);
  w_u16 (&w, STATE_VERSION);
  w_u64 (&w, s->stamp.epoch);
  w_u64 (&w, s->stamp.version);
  w_id (&w, s->lineage);
  w_u8 (&w, s->n_past);
  for (unsigned i = 0; i < s->n_past && i < CRG_MAX_PAST; i++)
    w_id (&w, s->past[i]);
  w_u64 (&w, s->domain);
  w_u8 (&w, s->n_gone);
  for (unsigned i = 0; i < s->n_gone && i < CRG_MAX_GONE; i++)
    w_str (&w, s->gone[i], CRG_NAME_MAX);
  w_u8 (&w, s->started);
  w_u8 (&w, s->deleted);
  w_str (&w, d->name, CRG_NAME_MAX);
  w_id (&w, d->cluster_id);
  w_id (&w, d->id);
  w_u8 (&w, d->placement);
  w_u8 (&w, d->takeover);
  w_u32 (&w, d->suspend_timeout_ms);
  w_u32 (&w, d->no_quorum_timeout_ms);
  w_u8 (&w, d->return_store_error);
  w_u8 (&w, d->resync_share);
  w_u8 (&w, d->n_sites);
  w_u8 (&w, d->n_nodes);
  w_u8 (&w, d->n_iasps);
  for (unsigned i = 0; i < d->n_sites; i++)
    w_str (&w, d->sites[i], CRG_NAME_MAX);
  for (unsigned i = 0; i < d->n_nodes; i++)
    encode_node (&w, &d->nodes[i]);
  for (unsigned i = 0; i < d->n_iasps; i++)
    encode_iasp (&w, &d->iasps[i], d->n_nodes);
  for (unsigned i = 0; i < d->n_iasps; i++)
    encode_rec (&w, &s->rec[i], d->n_sites, s->n_past);
  return w.bad ? 0 : w.used;
}

/* Cross references that a decoder of single fields can't see. */
static bool
consistent (const struct crg_state *s)
{
  const struct crg_def *d = &s->def;
  uint32_t orders = 0, votes = 0, new_votes = 0;

  for (unsigned i = 0; i < d->n_nodes; i++) {
    const struct domain_node *n = &d->nodes[i];

    if (n->id == NO_NODE || state_node_index (s, n->id) != (int) i
        || n->preferred_role > MEMBER_REPLICATE || n->order >= d->n_nodes
        || (n->site != NO_SITE && n->site >= d->n_sites))
      return false;
    orders |= 1u << n->order;
    votes += n->votes;
    new_votes += n->new_votes;
  }
  if (orders != (1u << d->n_nodes) - 1 || votes == 0 || new_votes == 0)
    return false;
  for (unsigned i = 0; i < d->n_iasps; i++) {
    const struct iasp_rec *r = &s->rec[i], *first = &s->rec[state_unit (s, i)];
    uint32_t places = 0;

    /* All IASPs of a unit move together. */
    if (r->tenure != first->tenure || r->production_site != first->production_site
        || r->copies[r->production_site].host != first->copies[first->production_site].host)
      return false;
    for (unsigned k = 0; k < d->n_nodes && d->placement == PLACEMENT_ACCESS; k++) {
      if (d->iasps[i].order[k] >= d->n_nodes)
        return false;
      places |= 1u << d->iasps[i].order[k];
    }
    if (d->placement == PLACEMENT_ACCESS && places != (1u << d->n_nodes) - 1)
      return false;
    for (unsigned site = 0; site < d->n_sites; site++) {
      uint32_t host = r->copies[site].host;
      int node = state_node_index (s, host);

      if (host != NO_NODE && (node < 0 || d->nodes[node].site != site))
        return false;
    }
  }
  return true;
}

int
state_decode (struct crg_state *s, const uint8_t *buf, size_t len)
{
  struct reader r = { buf, len, 0, false };
  struct crg_def *d = &s->def;
  uint16_t version;

  memset (s, 0, sizeof *s);
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    s->rec[i].production_site = NO_SITE;
  if (r_u32 (&r) != STATE_MAGIC)
    return -STATE_EBADMSG;
  version = r_u16 (&r);
  if (version < 3 || version > STATE_VERSION)
    return -STATE_EBADMSG;
  s->stamp.epoch = r_u64 (&r);
  s->stamp.version = r_u64 (&r);
  r_id (&r, s->lineage);
  s->n_past = r_u8 (&r);
  if (s->n_past > CRG_MAX_PAST)
    return -STATE_EBADMSG;
  for (unsigned i = 0; i < s->n_past; i++)
    r_id (&r, s->past[i]);
  s->domain = r_u64 (&r);
  s->n_gone = version < 4 ? 0 : r_u8 (&r);
  if (s->n_gone > CRG_MAX_GONE)
    return -STATE_EBADMSG;
  for (unsigned i = 0; i < s->n_gone; i++)
    r_str (&r, s->gone[i], sizeof s->gone[i]);
  s->started = r_bool (&r);
  s->deleted = r_bool (&r);
  r_str (&r, d->name, sizeof d->name);
  r_id (&r, d->cluster_id);
  r_id (&r, d->id);
  d->placement = r_u8 (&r);
  d->takeover = r_u8 (&r);
  d->suspend_timeout_ms = r_u32 (&r);
  d->no_quorum_timeout_ms = r_u32 (&r);
  d->return_store_error = r_bool (&r);
  d->resync_share = r_u8 (&r);
  d->n_sites = r_u8 (&r);
  d->n_nodes = r_u8 (&r);
  d->n_iasps = r_u8 (&r);
  if (r.bad || d->placement > PLACEMENT_ACCESS || d->takeover > TAKEOVER_ORDER
      || d->resync_share > 100 || d->n_sites == 0 || d->n_sites > CRG_MAX_SITES
      || d->n_nodes == 0 || d->n_nodes > CRG_MAX_NODES || d->n_iasps == 0
      || d->n_iasps > CRG_MAX_IASPS)
    return -STATE_EBADMSG;
  for (unsigned i = 0; i < d->n_sites; i++)
    r_str (&r, d->sites[i], sizeof d->sites[i]);
  for (unsigned i = 0; i < d->n_nodes; i++)
    decode_node (&r, &d->nodes[i]);
  for (unsigned i = 0; i < d->n_iasps; i++)
    decode_iasp (&r, &d->iasps[i], d->n_nodes);
  for (unsigned i = 0; i < d->n_iasps; i++)
    decode_rec (&r, &s->rec[i], d->n_sites, s->n_past, version);
  if (r.bad || r.used != len || !consistent (s))
    return -STATE_EBADMSG;
  return 0;
}

static void
encode_node_change (struct writer *w, const struct node_change *c)
{
  w_u8 (w, c->op);
  w_u8 (w, c->fields);
  w_u8 (w, c->drop_copy);
  encode_node (w, &c->node);
  w_str (w, c->site, CRG_NAME_MAX);
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    w_str (w, c->store[i], CRG_PATH_MAX);
}

static void
decode_node_change (struct reader *r, struct node_change *c)
{
  c->op = r_u8 (r);
  c->fields = r_u8 (r);
  c->drop_copy = r_bool (r);
  decode_node (r, &c->node);
  r_str (r, c->site, sizeof c->site);
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    r_str (r, c->store[i], sizeof c->store[i]);
  if (c->op < NODE_ADD || c->op > NODE_FINISH)
    r->bad = true;
}

size_t
change_encode (const struct change *c, uint8_t *buf, size_t len)
{
  struct writer w = { buf, len, 0, false };

  w_u8 (&w, c->kind);
  w_u64 (&w, c->base.epoch);
  w_u64 (&w, c->base.version);
  w_u32 (&w, c->iasps);
  w_u8 (&w, c->site);
  w_u32 (&w, c->node);
  w_u32 (&w, c->expect_node);
  w_u64 (&w, c->expect_tenure);
  w_u64 (&w, c->incarnation);
  w_id (&w, c->boot_id);
  w_u32 (&w, c->loss_iasps);
  w_u64 (&w, c->at_ms);
  w_u16 (&w, c->present);
  w_u8 (&w, c->graceful);
  w_u8 (&w, c->forced);
  w_u8 (&w, c->clear);
  w_u8 (&w, c->mode);
  w_str (&w, c->reason, CRG_REASON_MAX);
  if (c->kind == CH_NODE)
    encode_node_change (&w, &c->node_change);
  return w.bad ? 0 : w.used;
}

int
change_decode (struct change *c, const uint8_t *buf, size_t len)
{
  struct reader r = { buf, len, 0, false };

  memset (c, 0, sizeof *c);
  c->kind = r_u8 (&r);
  c->base.epoch = r_u64 (&r);
  c->base.version = r_u64 (&r);
  c->iasps = r_u32 (&r);
  c->site = r_u8 (&r);
  c->node = r_u32 (&r);
  c->expect_node = r_u32 (&r);
  c->expect_tenure = r_u64 (&r);
  c->incarnation = r_u64 (&r);
  r_id (&r, c->boot_id);
  c->loss_iasps = r_u32 (&r);
  c->at_ms = r_u64 (&r);
  c->present = r_u16 (&r);
  c->graceful = r_bool (&r);
  c->forced = r_bool (&r);
  c->clear = r_bool (&r);
  c->mode = r_u8 (&r);
  r_str (&r, c->reason, sizeof c->reason);
  if (c->kind == CH_NODE)
    decode_node_change (&r, &c->node_change);
  if (r.bad || r.used != len || c->kind < CH_START || c->kind >= CH_KIND_END)
    return -STATE_EBADMSG;
  return 0;
}
