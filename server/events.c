/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The levels of events.h and what hooks are told of them; nbd-crg-hooks(7)
 * has the list.
 */
#include "config.h"

#include "server/events.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/util.h"
#include "common/visible.h"
#include "server/hooks.h"

/* Nobody sees a difference sooner. */
#define LOOK_EVERY_MS 50
#define VAR_MAX (2 * CRG_REASON_MAX)
#define VARS_MAX 24

struct events {
  struct member *m;
  uint64_t made_ms, looked_ms;
  struct stamp stamp;       /* that was looked at */
  bool known;               /* the rest means something */
  /* By unit of movement (state.h): */
  struct {
    bool is_here;           /* `start` was told last */
    bool here_told;
    uint64_t tenure;
    uint32_t host;
  } unit[CRG_MAX_IASPS];
  uint8_t sets[CRG_MAX_IASPS]; /* bit set of sites */
  /* Who is there: as it is seen now, since when, and as it was told. */
  uint16_t absent, absent_told;
  bool majority, majority_told;
  uint64_t since_ms;
};

struct vars {
  unsigned n;
  char text[VARS_MAX][VAR_MAX];
  char *at[VARS_MAX + 1];
};

static void UTIL_PRINTF (2, 3)
var (struct vars *v, const char *fmt, ...)
{
  char text[VAR_MAX];
  va_list ap;

  if (v->n == VARS_MAX)
    return;
  va_start (ap, fmt);
  vsnprintf (text, sizeof text, fmt, ap);
  va_end (ap);
  /* A reason may come from another node; a script reads lines. */
  visible_text (text, strlen (text), v->text[v->n], VAR_MAX);
  v->at[v->n] = v->text[v->n];
  v->n++;
}

static const char *
node_name (const struct crg_state *s, uint32_t id)
{
  int n = state_node_index (s, id);

  return n < 0 ? "" : s->def.nodes[n].name;
}

/* What every event carries.  Which resource it is about, where each moves by
 * itself. */
static void
begin (struct vars *v, const struct events *e, const struct crg_state *s, unsigned unit)
{
  const struct daemon *d = member_daemon (e->m);
  uint32_t host = state_unit_host (s, unit);
  int self = member_self (e->m), p = state_node_index (s, host);
  uint8_t site = self < 0 ? NO_SITE : s->def.nodes[self].site;

  memset (v, 0, sizeof *v);
  var (v, "CRG_NAME=%s", member_crg (e->m));
  var (v, "CRG_NODE=%s", d->conf.name);
  var (v, "CRG_SITE=%s", site < s->def.n_sites ? s->def.sites[site] : "");
  var (v, "CRG_PRODUCTION_NODE=%s", node_name (s, host));
  var (v, "CRG_PRODUCTION_SITE=%s", p < 0 || s->def.nodes[p].site >= s->def.n_sites
                                      ? "" : s->def.sites[s->def.nodes[p].site]);
  var (v, "CRG_IS_PRODUCTION=%s", e->unit[unit].is_here ? "yes" : "no");
  var (v, "CRG_TENURE=%llu", (unsigned long long) state_unit_tenure (s, unit));
  if (s->def.placement == PLACEMENT_ACCESS)
    var (v, "CRG_RESOURCE=%s", s->def.iasps[unit].name);
  var (v, "CRG_CONF_DIR=%s", d->conf_dir);
  var (v, "CRG_RUN_DIR=%s", d->conf.run_dir);
}

static void
tell (struct events *e, struct vars *v, const char *event)
{
  const struct daemon *d = member_daemon (e->m);

  member_note (e->m, "hooks are told: %s", event);
  hooks_event (d->hooks, member_crg (e->m), event, v->at);
}

/* ---- production on this node ----------------------------------------------------------- */

static void
tell_here (struct events *e, const struct crg_state *s, unsigned unit, bool here, const char *why)
{
  struct vars v;

  e->unit[unit].is_here = here;
  e->unit[unit].here_told = true;
  begin (&v, e, s, unit);
  var (&v, "CRG_REASON=%s", why);
  tell (e, &v, here ? "start" : "end");
}

static void
look_here (struct events *e, const struct crg_state *s, unsigned unit,
           const struct group_status *st, uint64_t now_ms)
{
  bool named = member_is_production (e->m, unit);
  bool leased = named && st->lease_until_ms[unit] > now_ms, is_here = e->unit[unit].is_here;
  bool stopping = member_daemon (e->m)->stopping;

  /* All is open; whether a client gets there may depend on a hook's address. */
  if (!is_here && leased && !stopping && (st->served & (1u << unit)))
    tell_here (e, s, unit, true, "this node serves production");
  else if (is_here && !leased)
    tell_here (e, s, unit, false,
               !s->started || s->deleted ? "the CRG was ended"
               : named                   ? "the lease is over: another node may serve"
                                         : "another node is production");
  else if (is_here && stopping)
    tell_here (e, s, unit, false, "this node leaves");
  /* What an earlier run of crgd, or a crash, left behind is to be undone. */
  else if (!e->unit[unit].here_told && !named && st->phase == PHASE_STARTED)
    tell_here (e, s, unit, false, "crgd has started, and this node is not production");
}

/* ---- what is committed ----------------------------------------------------------------- */

static void
look_tenure (struct events *e, const struct crg_state *s, unsigned unit)
{
  uint32_t host = state_unit_host (s, unit);
  uint64_t tenure = state_unit_tenure (s, unit);
  struct vars v;

  if (tenure > e->unit[unit].tenure && host != e->unit[unit].host) {
    begin (&v, e, s, unit);
    var (&v, "CRG_PREVIOUS_NODE=%s", node_name (s, e->unit[unit].host));
    tell (e, &v, group_was_graceful (member_group (e->m), unit) ? "switchover" : "failover");
  }
  e->unit[unit].tenure = tenure;
  e->unit[unit].host = host;
}

static void
look_sets (struct events *e, const struct crg_state *s, bool say)
{
  for (unsigned i = 0; i < s->def.n_iasps; i++)
    for (uint8_t site = 0; site < s->def.n_sites; site++) {
      const struct copy_rec *c = &s->rec[i].copies[site];
      uint8_t bit = (uint8_t) (1u << site);
      struct vars v;

      if (c->in_set == ((e->sets[i] & bit) != 0))
        continue;
      e->sets[i] ^= bit;
      if (!say || s->def.iasps[i].type != RES_IASP || site == s->rec[i].production_site)
        continue;
      begin (&v, e, s, state_unit (s, i));
      var (&v, "CRG_IASP=%s", s->def.iasps[i].name);
      var (&v, "CRG_COPY_SITE=%s", s->def.sites[site]);
      var (&v, "CRG_COPY_NODE=%s", node_name (s, c->host));
      var (&v, "CRG_REASON=%s", c->in_set ? "" : c->reason);
      tell (e, &v, c->in_set ? "resync-done" : "suspend");
    }
}

/* ---- who is there ---------------------------------------------------------------------- */

static void
look_nodes (struct events *e, const struct crg_state *s, const struct group_status *st,
            uint64_t now_ms)
{
  uint16_t absent = 0;
  struct vars v;
  char names[VAR_MAX] = "";

  for (unsigned i = 0; i < st->n_nodes; i++)
    if (!st->nodes[i].in_view && (int) i != member_self (e->m))
      absent |= (uint16_t) (1u << i);
  if (absent != e->absent || st->majority != e->majority) {
    e->absent = absent;
    e->majority = st->majority;
    e->since_ms = now_ms;
  }
  if ((e->absent == e->absent_told && e->majority == e->majority_told)
      || now_ms < e->since_ms + HOOK_SETTLE_MS)
    return;
  e->absent_told = e->absent;
  e->majority_told = e->majority;
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (e->absent & (1u << i)) {
      size_t len = strlen (names);

      snprintf (names + len, sizeof names - len, "%s%s", len ? " " : "", s->def.nodes[i].name);
    }
  begin (&v, e, s, 0);
  var (&v, "CRG_MAJORITY=%s", e->majority ? "yes" : "no");
  var (&v, "CRG_ABSENT=%s", names);
  tell (e, &v, e->absent || !e->majority ? "partition" : "restore");
}

/* No majority, so nothing is known; but what an earlier run served within its
 * lease is over by now. */
static void
look_alone (struct events *e, uint64_t now_ms)
{
  const struct crg_state *s = group_applied (member_group (e->m));

  if (s == NULL || now_ms < e->made_ms + 2ull * member_daemon (e->m)->conf.lease_ms)
    return;
  for (unsigned u = 0; u < state_units (s); u++)
    if (!e->unit[u].here_told)
      tell_here (e, s, u, false, "crgd has started, and there is no majority");
}

void
events_look (struct events *e, bool all)
{
  const struct crg_state *s = group_committed (member_group (e->m));
  static struct group_status st;
  uint64_t now = clock_boottime_ms ();

  if (s == NULL)
    look_alone (e, now);
  if (s == NULL
      || (!all && stamp_compare (s->stamp, e->stamp) == 0 && now < e->looked_ms + LOOK_EVERY_MS))
    return;
  e->looked_ms = now;
  group_status (member_group (e->m), now, &st);
  if (!e->known)
    e->majority_told = true;
  for (unsigned u = 0; u < state_units (s); u++) {
    if (!e->known) {
      e->unit[u].tenure = state_unit_tenure (s, u);
      e->unit[u].host = state_unit_host (s, u);
    }
    look_tenure (e, s, u);
    look_here (e, s, u, &st, now);
  }
  look_sets (e, s, e->known);
  look_nodes (e, s, &st, now);
  e->stamp = s->stamp;
  e->known = true;
}

struct events *
events_new (struct member *m)
{
  struct events *e = calloc (1, sizeof *e);

  if (e == NULL)
    return NULL;
  e->m = m;
  e->made_ms = clock_boottime_ms ();
  return e;
}

void
events_free (struct events *e)
{
  const struct crg_state *s = e ? group_committed (member_group (e->m)) : NULL;

  for (unsigned u = 0; s && s->deleted && u < state_units (s); u++)
    if (e->unit[u].is_here)
      tell_here (e, s, u, false, "the CRG was deleted");
  free (e);
}
