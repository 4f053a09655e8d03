/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The sentences of explain.h.  They are made of the committed record, of what
 * the nodes announced of their stores, and of what production reports; where
 * one of these is missing, that is said.  Decides nothing.
 */
#include "config.h"

#include "server/explain.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/jsonl.h"
#include "common/util.h"
#include "server/status.h"
#include "server/tell.h"

struct page {
  const struct member *m;
  const struct crg_state *s;
  const struct iasp_rec *r;
  unsigned iasp;
  struct group_status st;
  json_t *report; /* production's, or NULL */
  uint64_t report_age_ms;
};

UTIL_PRINTF (2, 3)
static void
say (json_t *lines, const char *fmt, ...)
{
  char text[4 * CRG_REASON_MAX];
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (text, sizeof text, fmt, ap);
  va_end (ap);
  json_array_append_new (lines, jsonl_string (text));
}

static const char *
when (uint64_t wall_ms, char buf[64])
{
  uint64_t now = clock_wall_ms (), age = now > wall_ms ? (now - wall_ms) / 1000 : 0;
  time_t t = (time_t) (wall_ms / 1000);
  char stamp[32] = "";
  struct tm tm;

  if (gmtime_r (&t, &tm))
    strftime (stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &tm);
  if (age < 120)
    snprintf (buf, 64, "%s UTC, %" PRIu64 " s ago", stamp, age);
  else if (age < 7200)
    snprintf (buf, 64, "%s UTC, %" PRIu64 " min ago", stamp, age / 60);
  else
    snprintf (buf, 64, "%s UTC, %" PRIu64 " h ago", stamp, age / 3600);
  return buf;
}

static uint32_t
host_of (const struct page *p)
{
  return state_unit_host (p->s, state_unit (p->s, p->iasp));
}

static const char *
name_of (const struct page *p, uint32_t node)
{
  const char *name = tell_node_name (p->s, node);

  return *name ? name : "nobody";
}

static bool
is_present (const struct page *p, uint32_t node)
{
  for (unsigned i = 0; i < p->st.n_nodes; i++)
    if (p->st.nodes[i].id == node)
      return p->st.nodes[i].present;
  return false;
}

/* What a node of the site said of the store, on its disk. */
static void
say_store (const struct page *p, unsigned node, json_t *lines)
{
  const struct domain_node *n = &p->s->def.nodes[node];
  const struct group_host_status *h = group_announced (member_group (p->m), n->id, (uint8_t) p->iasp);
  const struct store_info *st = h ? &h->store : NULL;

  if (!is_present (p, n->id)) {
    say (lines, "%s is not there%s.", n->name, n->marked_failed ? ", and marked failed" : "");
    return;
  }
  if (h == NULL || !h->probed) {
    say (lines, "%s has not said yet what its store is.", n->name);
    return;
  }
  if (!st->has_super)
    say (lines, "%s can't use the store: %s.", n->name, *h->reason ? h->reason : "it has no superblock");
  else
    say (lines, "%s says of the disk: generation %" PRIu64 " (the record: %" PRIu64 "), tenure %" PRIu64
         "%s%s%s%s.", n->name, st->generation, p->r->generation, st->tenure,
         h->opened ? ", open" : st->clean ? ", released cleanly" : ", not released",
         st->unusable ? ", not coherent: never filled, or being resynchronised" : "",
         st->restarted ? ", its machine restarted and it was not filled since (R5)" : "",
         st->fork ? ", a fork (R6)" : "");
  if (st->has_super && *h->reason)
    say (lines, "%s: %s.", n->name, h->reason);
}

static json_int_t
number (json_t *obj, const char *key)
{
  return json_integer_value (json_object_get (obj, key));
}

/* How far the copy is behind, as production counts. */
static void
say_link (const struct page *p, unsigned site, json_t *lines)
{
  json_t *links = json_object_get (p->report, "links"), *link, *found = NULL;
  const char *state, *reason;
  size_t i;

  json_array_foreach (links, i, link) {
    if (number (link, "site") == (json_int_t) site)
      found = link;
  }
  if (found == NULL) {
    say (lines, "No report of production tells how far it is behind.");
    return;
  }
  state = json_string_value (json_object_get (found, "state")) ?: "?";
  reason = json_string_value (json_object_get (found, "reason")) ?: "";
  say (lines, "Production, %.1f s ago: %s%s%s; %" JSON_INTEGER_FORMAT " bytes dirty for it.",
       (double) p->report_age_ms / 1000, state, *reason ? ": " : "", reason, number (found, "dirty"));
  if (strcmp (state, "resyncing") == 0)
    say (lines, "Resynchronised: %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " bytes, %"
         JSON_INTEGER_FORMAT " bytes/s; %" JSON_INTEGER_FORMAT " bytes were sent by this production, %"
         JSON_INTEGER_FORMAT " were found equal by digest and were not.", number (found, "done"),
         number (found, "total"), number (found, "rate"), number (found, "sent"), number (found, "equal"));
  if (json_is_true (json_object_get (found, "yields")))
    say (lines, "It yields to clients, which work: it takes %u %% of the time (resync-share), and all of it when "
         "they rest (G1).", p->s->def.resync_share ? p->s->def.resync_share : RESYNC_SHARE);
}

static const char *
state_name (const struct page *p, unsigned site)
{
  const struct copy_rec *c = &p->r->copies[site];

  return c->barred      ? "barred"
         : c->detached  ? "detached"
         : c->suspended ? "suspended by an operator"
         : c->in_set    ? "in the set"
                        : "not in the set";
}

/* C9: has nobody opened its store since the group was recovered? */
static bool
is_of_past (const struct page *p, unsigned site)
{
  for (unsigned i = 0; i < p->s->def.n_nodes; i++) {
    const struct domain_node *n = &p->s->def.nodes[i];
    const struct group_host_status *h = group_announced (member_group (p->m), n->id, (uint8_t) p->iasp);

    if (n->site == site && h != NULL && !h->opened && h->store.has_super && state_is_past (p->s, h->store.lineage))
      return true;
  }
  return false;
}

static void
say_why (const struct page *p, unsigned site, json_t *lines)
{
  static const char *const exports[DETACHED_END] = { "not exported", "exported read-only",
                                                     "exported read-write" };
  const struct copy_rec *c = &p->r->copies[site];
  char buf[64];

  if (c->in_set)
    say (lines, "It is in the in-sync set since generation %" PRIu64 ": it has every acknowledged write%s.", c->since,
         is_of_past (p, site) ? ", as far as is known since the group was recovered (C9)" : "");
  else if (c->left_ms)
    say (lines, "It left the in-sync set (%s), where it was since generation %" PRIu64 ": %s.",
         when (c->left_ms, buf), c->since, *c->reason ? c->reason : "no reason was given");
  else
    say (lines, "It never was in the in-sync set%s%s.", *c->reason ? ": " : "", c->reason);
  if (c->barred)
    say (lines, "It is barred (F4): %s.  'crgctl mirror unbar' lets it be used again.",
         *c->reason ? c->reason : "its store failed");
  if (c->suspended)
    say (lines, "An operator has suspended it; 'crgctl mirror resume' ends that.");
  if (c->detached)
    say (lines, "It is detached, %s; %s.  'crgctl mirror reattach' takes it back.",
         exports[c->exported < DETACHED_END ? c->exported : 0],
         c->fork == FORK_DIVERGED ? "it may hold writes that production has not"
                                  : "it was not written since");
  else if (c->fork == FORK_DIVERGED)
    say (lines, "Until it is in the set again it gets what it was written as a fork or, if that was not "
         "tracked, all anew: what it holds beyond production's is lost.");
}

/* Whether each node of the site could be production, and why not. */
static void
say_takeover (const struct page *p, unsigned site, json_t *lines)
{
  for (unsigned i = 0; i < p->s->def.n_nodes; i++) {
    const struct domain_node *n = &p->s->def.nodes[i];
    const char *why;

    if (n->site != site || !is_present (p, n->id))
      continue;
    if (group_can_force (member_group (p->m), p->iasp, n->id))
      say (lines, "'crgctl switchover %s --to %s%s%s' tells what it would cost to go on with its copy by force.",
           p->s->def.name, n->name, p->s->def.placement == PLACEMENT_ACCESS ? " --iasp " : "",
           p->s->def.placement == PLACEMENT_ACCESS ? p->s->def.iasps[p->iasp].name : "");
    if (n->id == host_of (p))
      continue;
    why = group_refusal (member_group (p->m), p->iasp, n->id);
    if (why == NULL)
      say (lines, "%s could take over.", n->name);
    else
      say (lines, "%s could not take over: %s.", n->name, why);
  }
}

/* The comparison under way, or the last one of this production. */
static void
say_verify (const struct page *p, unsigned site, json_t *lines)
{
  json_t *v = json_object_get (p->report, "verify"), *copy, *range;
  const char *reason;
  size_t i, k;

  json_array_foreach (json_object_get (v, "copies"), i, copy) {
    if (number (copy, "site") != (json_int_t) site)
      continue;
    reason = json_string_value (json_object_get (copy, "reason")) ?: "";
    say (lines, "Verify%s: %s%s%s; %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " bytes compared, %"
         JSON_INTEGER_FORMAT " differ%s.", json_is_true (json_object_get (v, "repair")) ? " with repair" : "",
         json_string_value (json_object_get (copy, "state")) ?: "?", *reason ? ": " : "", reason,
         number (copy, "compared"), number (v, "total"), number (copy, "different"),
         json_is_true (json_object_get (copy, "repaired")) ? "ed and were repaired" : "");
    if (json_is_true (json_object_get (v, "on")))
      say (lines, "It goes on at %" JSON_INTEGER_FORMAT " bytes/s, %" JSON_INTEGER_FORMAT " s to go.", number (v, "rate"),
           number (v, "eta"));
    json_array_foreach (json_object_get (copy, "found"), k, range) {
      say (lines, "It differed in %" JSON_INTEGER_FORMAT " bytes at %" JSON_INTEGER_FORMAT ".",
           json_integer_value (json_array_get (range, 1)), json_integer_value (json_array_get (range, 0)));
    }
  }
}

/* What the copy held before its resynchronisation. */
static void
say_snapshot (const struct page *p, unsigned site, json_t *lines)
{
  uint64_t age_ms;
  json_t *report = status_find_report (p->m, p->r->copies[site].host, p->iasp, &age_ms);
  json_t *snapshot = json_object_get (report, "snapshot");
  const char *state = json_string_value (json_object_get (snapshot, "state"));
  const char *text = json_string_value (json_object_get (snapshot, "text")) ?: "";

  if (state && strcmp (state, "kept") == 0)
    say (lines, "What it held before is kept until it is in the set: %s.", text);
  else if (state && strcmp (state, "making") == 0)
    say (lines, "What it holds is being kept; the resynchronisation waits for that.");
  else if (state && strcmp (state, "failed") == 0)
    say (lines, "What it holds could not be kept (%s); the resynchronisation waits, and it is tried again.", text);
  json_decref (report);
}

static json_t *
copy_page (const struct page *p, unsigned site)
{
  const struct copy_rec *c = &p->r->copies[site];
  bool production = site == p->r->production_site;
  json_t *lines = json_array ();

  say_why (p, site, lines);
  for (unsigned i = 0; i < p->s->def.n_nodes; i++)
    if (p->s->def.nodes[i].site == site)
      say_store (p, i, lines);
  if (!production && !c->detached && c->host == NO_NODE)
    say (lines, "Nobody hosts it: no node of the site is there that can.");
  if (!production && !c->in_set)
    say_link (p, site, lines);
  if (!production)
    say_snapshot (p, site, lines);
  if (!production)
    say_verify (p, site, lines);
  say_takeover (p, site, lines);
  return json_pack ("{s:s, s:s, s:s, s:s, s:o}", "site", p->s->def.sites[site], "role",
                    c->detached ? "detached" : production ? "production" : "mirror", "host",
                    name_of (p, c->host), "state", state_name (p, site), "text", lines);
}

static void
add_wait (json_t *waits, const char *node, const char *owner, const char *reason, json_int_t age_ms)
{
  json_array_append_new (waits, json_pack ("{s:s, s:o, s:o, s:I}", "node", node, "owner", jsonl_string (owner),
                                           "reason", jsonl_string (reason), "age_ms", age_ms));
}

/* What the plugin of a node says of its own: production's, or a copy's. */
static void
add_waits (json_t *waits, const char *node, json_t *report)
{
  json_t *wait;
  size_t i;

  json_array_foreach (json_object_get (report, "waits"), i, wait)
    add_wait (waits, node, json_string_value (json_object_get (wait, "owner")) ?: "?",
              json_string_value (json_object_get (wait, "reason")) ?: "", number (wait, "age_ms"));
}

static json_t *
waits_page (const struct page *p)
{
  json_t *waits = json_array ();
  uint64_t now = clock_boottime_ms ();

  if (p->st.wait_reason[0])
    add_wait (waits, "", p->st.wait_owner, p->st.wait_reason,
              (json_int_t) (now > p->st.wait_since_ms ? now - p->st.wait_since_ms : 0));
  add_waits (waits, name_of (p, host_of (p)), p->report);
  for (unsigned i = 0; i < p->s->def.n_sites; i++) {
    uint64_t age_ms;
    json_t *report;

    if (p->r->copies[i].host == NO_NODE || p->r->copies[i].host == host_of (p))
      continue;
    report = status_find_report (p->m, p->r->copies[i].host, p->iasp, &age_ms);
    add_waits (waits, name_of (p, p->r->copies[i].host), report);
    json_decref (report);
  }
  return waits;
}

static void
say_production (const struct page *p, json_t *lines)
{
  uint32_t host = host_of (p);
  bool served = (p->st.served & (1u << state_unit (p->s, p->iasp)))
                && json_is_true (json_object_get (p->report, "served"));
  char missing[CRG_MAX_NODES * (CRG_NAME_MAX + 2)] = "";
  size_t used = 0;

  if (!p->s->started)
    say (lines, "The CRG is not started: nothing is hosted.");
  else if (served)
    say (lines, "%s serves it, at site %s: tenure %" PRIu64 ", generation %" PRIu64 ".",
         name_of (p, host), p->s->def.sites[p->r->production_site], p->r->tenure, p->r->generation);
  else
    say (lines, "It is not served.  Its named host is %s at site %s, which is %s; tenure %" PRIu64
         ", generation %" PRIu64 ".", name_of (p, host), p->s->def.sites[p->r->production_site],
         is_present (p, host) ? "there" : "not there", p->r->tenure, p->r->generation);
  if (p->r->forced)
    say (lines, "This production was forced by an operator (R4).");
  if (p->r->loss)
    say (lines, "Answered writes may have been lost %" PRIu64 " times.", p->r->loss);
  if (json_object_get (p->report, "hot_bytes"))
    say (lines, "Hot on its disk: %" JSON_INTEGER_FORMAT " bytes, written and not yet known to be stable on "
         "every copy of the set.", number (p->report, "hot_bytes"));
  if (json_is_true (json_object_get (p->report, "held")))
    say (lines, "I/O is held: %s.", json_string_value (json_object_get (p->report, "hold_reason")) ?: "");
  for (unsigned i = 0; i < p->s->def.n_nodes; i++)
    if (!is_present (p, p->s->def.nodes[i].id) && used < sizeof missing)
      used += (size_t) snprintf (missing + used, sizeof missing - used, "%s%s", used ? ", " : "",
                                 p->s->def.nodes[i].name);
  if (*missing)
    say (lines, "Missing nodes: %s.", missing);
  for (unsigned i = 0; i < p->s->n_gone; i++)
    say (lines, "Node %s was removed while it was marked failed: others may open what it had open (S1), until a "
         "node of that name is added.", p->s->gone[i]);
}

json_t *
explain_iasp (const struct member *m, unsigned iasp)
{
  struct page p = { .m = m, .s = member_state (m), .iasp = iasp };
  json_t *lines = json_array (), *copies = json_array (), *page;

  if (p.s == NULL || iasp >= p.s->def.n_iasps) {
    say (lines, "This node holds no group state yet.");
    return json_pack ("{s:s, s:s, s:o, s:o, s:o}", "iasp", "?", "crg", member_crg (m), "text", lines,
                      "copies", copies, "waits", json_array ());
  }
  p.r = &p.s->rec[iasp];
  member_status (m, clock_boottime_ms (), &p.st);
  p.report = status_find_report (m, host_of (&p), iasp, &p.report_age_ms);
  say_production (&p, lines);
  for (unsigned i = 0; i < p.s->def.n_sites && p.s->def.iasps[iasp].type == RES_IASP; i++)
    json_array_append_new (copies, copy_page (&p, i));
  page = json_pack ("{s:s, s:s, s:o, s:o, s:o}", "iasp", p.s->def.iasps[iasp].name, "crg",
                    p.s->def.name, "text", lines, "copies", copies, "waits", waits_page (&p));
  json_decref (p.report);
  return page;
}
