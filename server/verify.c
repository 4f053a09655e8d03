/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The way of `crgctl mirror verify` to the plugin, and of its state back; see
 * verify.h.  Nothing waits here: what became of a request shows in status.
 */
#include "config.h"

#include "server/verify.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/exitcodes.h"

static int
find_site (const struct crg_state *s, const struct verify_request *rq, json_t *sites, char *reason, size_t len)
{
  for (unsigned i = 0; rq->site && i < s->def.n_sites; i++)
    if (strcmp (s->def.sites[i], rq->site) == 0) {
      if (i == s->rec[rq->iasp].production_site) {
        snprintf (reason, len, "the copy of %s is the production copy: the others are compared with it", rq->site);
        return CRG_EXIT_REFUSED;
      }
      json_array_append_new (sites, json_integer ((json_int_t) i));
      return CRG_EXIT_FINE;
    }
  if (!rq->site)
    return CRG_EXIT_FINE;
  snprintf (reason, len, "no site %.63s in CRG %s", rq->site, s->def.name);
  return CRG_EXIT_NO_OBJECT;
}

int
verify_ask (struct member *m, const struct verify_request *rq, json_int_t *run, char *reason, size_t len)
{
  const struct crg_state *s = member_state (m);
  const unsigned unit = state_unit (s, rq->iasp);
  uint32_t host = state_unit_host (s, unit), random = 0;
  int node = state_node_index (s, host), code;
  struct plugin *p = member_plugin (m, rq->iasp);
  json_t *sites = json_array (), *req;

  code = find_site (s, rq, sites, reason, len);
  if (code != CRG_EXIT_FINE)
    goto out;
  code = CRG_EXIT_REFUSED;
  if (!s->started || node < 0) {
    snprintf (reason, len, "nobody hosts production of IASP %s", s->def.iasps[rq->iasp].name);
    code = CRG_EXIT_UNAVAILABLE;
  }
  else if (!member_is_production (m, unit))
    snprintf (reason, len, "production is at node %s: ask its crgd", s->def.nodes[node].name);
  else if (s->def.iasps[rq->iasp].type != RES_IASP)
    snprintf (reason, len, "%s is no IASP but a script: it has no copies", s->def.iasps[rq->iasp].name);
  else {
    clock_random (&random, sizeof random);
    *run = (json_int_t) (random >> 1) + 1;
    req = json_pack ("{s:s, s:I, s:b, s:b, s:O}", "cmd", "verify", "run", *run, "repair", rq->repair, "stop", rq->stop,
                     "sites", sites);
    if (p == NULL || plugin_role (p) != HOST_PRODUCTION) {
      json_decref (req);
      req = NULL;
    }
    if (req && plugin_tell (p, req)) {
      member_note (m, "IASP %u: verify%s%s", rq->iasp, rq->repair ? " --repair" : "", rq->stop ? " --stop" : "");
      code = CRG_EXIT_FINE;
    }
    else {
      snprintf (reason, len, "production's process is not ready");
      code = CRG_EXIT_UNAVAILABLE;
    }
  }
out:
  json_decref (sites);
  return code;
}

/* ---- status ---------------------------------------------------------------------------- */

json_t *
verify_report (const json_t *status, bool found)
{
  json_t *from = json_object_get (status, "verify"), *out, *copy;
  size_t i;

  if (!json_is_object (from))
    return NULL;
  out = json_deep_copy (from);
  json_array_foreach (json_object_get (out, "copies"), i, copy) {
    if (!found)
      json_object_del (copy, "found");
  }
  return out;
}

json_t *
verify_status_json (const struct crg_state *s, const json_t *report)
{
  json_t *out = json_deep_copy (json_object_get (report, "verify")), *copy;
  size_t i;

  if (!json_is_object (out)) {
    json_decref (out);
    return json_null ();
  }
  json_array_foreach (json_object_get (out, "copies"), i, copy) {
    json_int_t site = json_integer_value (json_object_get (copy, "site"));

    if (site >= 0 && site < s->def.n_sites)
      json_object_set_new (copy, "site", json_string (s->def.sites[site]));
  }
  return out;
}
