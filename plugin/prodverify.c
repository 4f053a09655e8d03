/* SPDX-License-Identifier: BSD-3-Clause */
/* The comparison of the copies around its pure core (verify.h), and the digests of the resync: the
 * controller's command, the questions to the copies, the own digests, what is logged and told.  The
 * engine's thread only.  It decides nothing.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin/engine_private.h"
#include "plugin/log.h"

/* ---- what the core wants ------------------------------------------------------------------ */

static void
ask_copy (struct engine *e, const struct repl_action *a)
{
  struct mlink *l = &e->links[a->site];
  struct wire_digest_req m = { .algorithm = WIRE_DIGEST_SHA256, .block_size = e->ia->p.dirty_block };
  struct wire_header h = a->frame;
  uint8_t buf[WIRE_MAX_CONTROL];
  int r;

  h.tenure = e->rec.tenure;
  h.payload_len = (uint32_t) wire_encode_digest_req (&m, buf, sizeof buf);
  r = mlink_send (l, &h, buf);
  /* The core asks no more than it was given room for, so what fails here is the link. */
  if (r < 0 && l->state != LK_CLOSING && l->state != LK_FREE)
    mlink_close (l, r == -ENOBUFS ? "the link's buffer overflowed" : "the link broke");
}

static void
ask_store (struct engine *e, const struct repl_action *a)
{
  struct repl_event ev = { .kind = RE_DIGEST, .site = e->site, .seq = a->no, .error = -EAGAIN };

  if (!digest_start (e->digester, 0, a->no, a->offset, a->length, e->ia->p.dirty_block))
    prod_feed (e, &ev);
}

static void
free_memory (struct engine *e)
{
  free (e->prod.verify.memory);
  e->prod.verify.memory = NULL;
}

static void
ended (struct engine *e)
{
  struct verify_status st;

  verify_status (e->prod.core, e->now_ms, &st);
  for (unsigned s = 0; s < e->rec.n_sites; s++) {
    const struct verify_site *x = verify_of_site (e->prod.core, s);

    if (x->phase != VP_OUT)
      log_line ("verify of the copy at %s: %s%s%s; %llu of %llu bytes compared, %llu differ%s", e->rec.site[s],
                verify_phase_name (x->phase), x->reason[0] ? ": " : "", x->reason,
                (unsigned long long) x->compared_bytes, (unsigned long long) st.total_bytes,
                (unsigned long long) x->different_bytes, x->repaired ? " and were repaired" : "");
  }
  free_memory (e);
}

void
prodverify_do (struct engine *e, const struct repl_action *a)
{
  switch ((enum repl_action_kind) a->kind) {
  case RA_DIGEST_REQ:
    ask_copy (e, a);
    break;
  case RA_DIGEST:
    ask_store (e, a);
    break;
  case RA_DIFFERS:
    log_line ("verify: the copy at %s differs from production in %llu bytes at %llu", e->rec.site[a->site],
              (unsigned long long) a->length, (unsigned long long) a->offset);
    break;
  default: /* RA_VERIFY */
    if (a->site == e->site)
      ended (e);
    else if (a->op != VP_DONE && a->op != VP_STOPPED)
      log_line ("verify of the copy at %s: %s", e->rec.site[a->site], verify_phase_name (a->op));
    control_event (e, json_pack ("{s:s, s:i, s:s}", "event", "verify", "site", (int) a->site, "state",
                                 a->site == e->site ? "over" : verify_phase_name (a->op)));
    break;
  }
}

void
prodverify_digest (struct engine *e, const struct digest_job *job)
{
  struct repl_event ev = { .kind = RE_DIGEST, .site = e->site, .seq = job->seq, .error = job->error,
                           .map = job->digests[0], .length = job->n,
                           .zero = job->error == 0 && job->hole ? RZ_HOLE : RZ_DATA };

  if (e->prod.on)
    prod_feed (e, &ev);
}

void
prodverify_end (struct engine *e)
{
  struct verify_status st;

  verify_status (e->prod.core, e->now_ms, &st);
  if (st.on)
    log_line ("verify: ended unfinished, production leaves this node");
  free_memory (e);
}

/* ---- the controller ----------------------------------------------------------------------- */

static const char *
refusal (struct engine *e, json_t *request, uint32_t *sites)
{
  json_t *list = json_object_get (request, "sites"), *j;
  struct verify_status st;
  size_t i;

  *sites = 0;
  if (!e->prod.on)
    return "the plugin is not production";
  json_array_foreach (list, i, j) {
    json_int_t s = json_integer_value (j);

    if (!json_is_integer (j) || s < 0 || s >= e->rec.n_sites || s == e->site)
      return "sites: not the index of another site of the record";
    *sites |= 1u << s;
  }
  if (*sites == 0)
    *sites = ((1u << e->rec.n_sites) - 1) & ~(1u << e->site);
  if (*sites == 0)
    return "there is no other copy to compare";
  verify_status (e->prod.core, e->now_ms, &st);
  if (st.on)
    return "a comparison is under way already";
  if (!digest_has_room (e->digester, VERIFY_SLOTS + 1 + REPL_MAX_ASKS))
    return "digests of an earlier comparison are still being made";
  return NULL;
}

void
prodverify_command (struct engine *e, json_t *request, json_int_t id)
{
  json_int_t run = json_integer_value (json_object_get (request, "run"));
  bool repair = json_is_true (json_object_get (request, "repair"));
  struct repl_event ev = { .kind = RE_VERIFY, .repair = repair };
  struct repl_event stop = { .kind = RE_VERIFY_STOP, .reason = "an operator stopped it" };
  const char *why;
  uint32_t sites;

  if (json_is_true (json_object_get (request, "stop"))) {
    control_ok (e, 0, id, NULL);
    prod_feed (e, &stop);
    return;
  }
  why = refusal (e, request, &sites);
  if (!why && repair) {
    free_memory (e);
    e->prod.verify.memory = calloc (1, verify_memory_bytes (e->ia->p.size, e->ia->p.dirty_block, e->rec.n_sites));
    if (!e->prod.verify.memory)
      why = "no memory to note what differs";
  }
  if (why) {
    e->prod.verify.refused_run = run;
    snprintf (e->prod.verify.refused, sizeof e->prod.verify.refused, "%s", why);
    control_error (e, 0, id, "busy", "verify: %s", why);
    return;
  }
  e->prod.verify.run = run;
  ev.memory = e->prod.verify.memory;
  ev.in_set = sites;
  control_ok (e, 0, id, NULL);
  prod_feed (e, &ev);
}

static json_t *
found_json (const struct verify_site *x)
{
  json_t *list = json_array ();

  for (unsigned i = 0; i < x->n_found; i++)
    json_array_append_new (list, json_pack ("[I, I]", (json_int_t) x->found[i].offset,
                                            (json_int_t) x->found[i].length));
  return list;
}

json_t *
prodverify_status (struct engine *e)
{
  json_t *copies, *out;
  struct verify_status st;

  if (!e->prod.on || (e->prod.verify.run == 0 && e->prod.verify.refused_run == 0))
    return json_null ();
  verify_status (e->prod.core, e->now_ms, &st);
  copies = json_array ();
  for (unsigned s = 0; s < e->rec.n_sites; s++) {
    const struct verify_site *x = verify_of_site (e->prod.core, s);

    if (x->phase != VP_OUT)
      json_array_append_new (
        copies, json_pack ("{s:i, s:s, s:o, s:I, s:I, s:b, s:o}", "site", (int) s, "state",
                           verify_phase_name (x->phase), "reason", jsonl_string (x->reason), "compared",
                           (json_int_t) x->compared_bytes, "different",
                           (json_int_t) x->different_bytes, "repaired", x->repaired, "found", found_json (x)));
  }
  out = json_pack ("{s:I, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:o}", "run", e->prod.verify.run, "on", st.on, "repair",
                   st.repair, "done", (json_int_t) st.done_bytes, "total", (json_int_t) st.total_bytes, "rate",
                   (json_int_t) st.rate_bytes_s, "eta",
                   st.eta_s == UINT64_MAX ? (json_int_t) -1 : (json_int_t) st.eta_s, "elapsed_ms",
                   (json_int_t) st.elapsed_ms, "copies", copies);
  if (e->prod.verify.refused_run != 0) {
    json_object_set_new (out, "refused_run", json_integer (e->prod.verify.refused_run));
    json_object_set_new (out, "refused", jsonl_string (e->prod.verify.refused));
  }
  return out;
}
