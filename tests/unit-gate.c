/* SPDX-License-Identifier: BSD-3-Clause */
/* The gate: modes, epochs, draining while workers run, marks of writes in flight, the lease; and
 * the plugin's parameters: what is refused, with a sentence that names the key.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "plugin/gate.h"
#include "plugin/params.h"
#include "tests/tap.h"

static struct gate g;
static _Atomic bool stop;
static _Atomic unsigned fast_inside; /* workers that believe to be in fast mode */

static void *
worker (void *arg)
{
  while (!atomic_load (&stop)) {
    struct gate_pass pass = gate_enter (&g);

    if (pass.mode == GATE_FAST) {
      atomic_fetch_add (&fast_inside, 1);
      usleep (20);
      atomic_fetch_sub (&fast_inside, 1);
    }
    gate_leave (&pass);
    usleep (5);
  }
  return NULL;
}

static void
draining (void)
{
  pthread_t t[8];
  unsigned bad = 0, never = 0;

  gate_init (&g, GATE_FAST, UINT64_MAX);
  for (unsigned i = 0; i < 8; i++)
    pthread_create (&t[i], NULL, worker, NULL);
  for (unsigned n = 0; n < 60; n++) {
    unsigned rounds = 0;

    usleep (200);
    gate_set (&g, n % 2 ? GATE_CLOSED : GATE_ENGINE, true);
    while (!gate_is_drained (&g) && ++rounds < 100000)
      usleep (10);
    if (rounds == 100000)
      never++;
    if (atomic_load (&fast_inside) != 0)
      bad++;
    gate_set (&g, GATE_FAST, false);
  }
  atomic_store (&stop, true);
  for (unsigned i = 0; i < 8; i++)
    pthread_join (t[i], NULL);
  is (never, 0, "the gate drains while workers come and go");
  is (bad, 0, "drained means that nobody works by the old mode");
  is (gate_inside (&g), 0, "all have left");
  is (atomic_load (&g.epoch), 60, "each change of role is an epoch");
}

static void
marks (void)
{
  gate_init (&g, GATE_ENGINE, 0);
  ok (!gate_is_marked (&g, 0, UINT64_C (1) << 40), "nothing is marked");
  gate_mark (&g, 65536 + 10, 100);
  ok (gate_is_marked (&g, 65536, 1), "a read of the block finds the mark");
  ok (gate_is_marked (&g, 0, 70000), "one that ends in it too");
  ok (!gate_is_marked (&g, 0, 65536), "the block before is not marked");
  ok (gate_is_marked (&g, 0, UINT64_C (1) << 40), "a very long one finds it");
  gate_mark (&g, 65536, 70000);
  gate_unmark (&g, 65536 + 10, 100);
  ok (gate_is_marked (&g, 131072, 5), "two writes, one answered");
  gate_unmark (&g, 65536, 70000);
  ok (!gate_is_marked (&g, 0, UINT64_C (1) << 40), "and none is left");
  gate_mark (&g, 0, UINT64_C (4) << 30);
  ok (gate_is_marked (&g, UINT64_C (1) << 50, 1), "a very long write is everywhere");
  gate_unmark (&g, 0, UINT64_C (4) << 30);
  ok (!gate_is_marked (&g, 0, 10), "and gone");
  atomic_store (&g.lease_until_ms, 1000);
  ok (gate_lease_is_valid (&g, 999) && !gate_lease_is_valid (&g, 1000), "the lease ends at its instant (L1)");
}

/* Who is inside has the store: if nobody leaves, the store does not answer. */
static void
stuck (void)
{
  struct gate_pass a, b;
  uint64_t age_ms;

  gate_init (&g, GATE_FAST, UINT64_MAX);
  gate_look (&g, 1000);
  is (gate_stuck (&g, 1100, 0, &age_ms), 0, "nobody is inside");
  a = gate_enter (&g);
  b = gate_enter (&g);
  gate_look (&g, 1100);
  is (gate_stuck (&g, 1150, 100, &age_ms), 0, "two, for a moment");
  gate_look (&g, 1200);
  is (gate_stuck (&g, 1250, 100, &age_ms), 2, "nobody has left since");
  is (age_ms, 150, "so long");
  gate_leave (&a);
  a = gate_enter (&g);
  gate_look (&g, 1300);
  is (gate_stuck (&g, 1350, 100, &age_ms), 0, "one has left, and another is there");
  is (gate_inside (&g), 2, "two");
  gate_leave (&a);
  gate_leave (&b);
  gate_look (&g, 1400);
  ok (gate_stuck (&g, 9000, 0, &age_ms) == 0 && age_ms == 0 && gate_inside (&g) == 0, "nobody again");
}

static const struct {
  const char *key, *value, *says;
} refused[] = {
  { "nonsense", "1", "unknown key 'nonsense'" },
  { "name", "Pay Roll", "not a name" },
  { "name", "", "not a name" },
  { "direct", "maybe", "auto, on or off" },
  { "role", "mirror", "by hand the only role" },
  { "crg-id", "12", "32 hexadecimal" },
  { "crg-id", "00000000000000000000000000000000", "not all zero" },
  { "size", "12x", "not a number" },
  { "size", "-4096", "not a number" },
  { "size", "99999999999999999999", "not a number" },
  { "size", "0", "above 0" },
  { "size", "1000", "multiple of 512" },
  { "dirty-block", "65535", "power of two" },
  { "dirty-block", "2048", "power of two" },
  { "dirty-block", "2097152", "not a number from 0" },
  { "listen", "127.0.0.1", "ADDRESS" },
  { "listen", ":80", "ADDRESS" },
  { "listen", "127.0.0.1:70000", "65535" },
  { "listen", "1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5:80", "1 to 4" },
  { "listen", "1.1.1.1,,1.1.1.3:80", "ADDRESS" },
  { "suspend-timeout-ms", "99999999999", "not a number" },
  { "control", "", "1 to" },
};

static void
parameters (void)
{
  static const char *const control[][2] = {
    { "control", "/run/x" }, { "node", "p1" }, { "site", "rome" }, { "crg", "wages" },
    { "cluster-id", "11111111111111111111111111111111" }, { "crg-id", "22222222222222222222222222222222" },
    { "iasp-id", "33333333-3333-3333-3333-333333333333" }, { "lineage", "44444444444444444444444444444444" },
    { "size", "1048576" }, { "dirty-block", "65536" },
  };
  struct params p;
  char err[512];

  for (unsigned i = 0; i < ARRAY_SIZE (refused); i++) {
    params_init (&p);
    err[0] = '\0';
    ok (params_set (&p, refused[i].key, refused[i].value, err, sizeof err) == -EINVAL && strstr (err, refused[i].says)
          && strstr (err, refused[i].key),
        "%s=%s: %s", refused[i].key, refused[i].value, err);
  }
  params_init (&p);
  params_set (&p, "name", "payroll", err, sizeof err);
  is (params_set (&p, "name", "payroll", err, sizeof err), -EINVAL, "the same key twice");
  is (params_complete (&p, err, sizeof err), -EINVAL, "no store");
  params_set (&p, "store", "/x", err, sizeof err);
  ok (params_complete (&p, err, sizeof err) == -EINVAL && strstr (err, "role=production"), "no role: %s", err);
  params_set (&p, "role", "production", err, sizeof err);
  is (params_complete (&p, err, sizeof err), 0, "by hand");
  params_set (&p, "meta", "/y", err, sizeof err);
  ok (params_complete (&p, err, sizeof err) == -EINVAL && strstr (err, "meta="), "meta= by hand: %s", err);
  params_set (&p, "node", "p1", err, sizeof err);
  ok (params_complete (&p, err, sizeof err) == -EINVAL && strstr (err, "meta="), "both by hand: %s", err);

  for (unsigned without = 1; without <= ARRAY_SIZE (control); without++) {
    bool good = true;

    params_init (&p);
    params_set (&p, "name", "payroll", err, sizeof err);
    params_set (&p, "store", "/x", err, sizeof err);
    for (unsigned i = 0; i < ARRAY_SIZE (control); i++)
      if (i != without)
        good = params_set (&p, control[i][0], control[i][1], err, sizeof err) == 0 && good;
    if (without == ARRAY_SIZE (control))
      ok (good && params_complete (&p, err, sizeof err) == 0, "with a controller");
    else
      ok (good && params_complete (&p, err, sizeof err) == -EINVAL && strstr (err, control[without][0]), "without %s: %s",
          control[without][0], err);
  }
  is (params_set (&p, "listen", "127.0.0.1,[::1]:10810", err, sizeof err), 0, "two addresses");
  ok (p.n_listen == 2 && p.listen_port == 10810 && strcmp (p.listen[1], "::1") == 0, "IPv6 without its brackets");
  ok (params_complete (&p, err, sizeof err) == -EINVAL && strstr (err, "tls-ca="), "listen= without TLS: %s", err);
  params_init (&p);
  for (unsigned i = 0; i < ARRAY_SIZE (control); i++)
    params_set (&p, control[i][0], control[i][1], err, sizeof err);
  params_set (&p, "name", "payroll", err, sizeof err);
  params_set (&p, "store", "/x", err, sizeof err);
  params_set (&p, "meta", "/y", err, sizeof err);
  is (params_complete (&p, err, sizeof err), 0, "metadata elsewhere");
  params_set (&p, "persistent-reservation", "on", err, sizeof err);
  ok (params_complete (&p, err, sizeof err) == -EINVAL && strstr (err, "meta= exclude each other"), "and a reservation: %s",
      err);
  params_set (&p, "role", "production", err, sizeof err);
  is (params_complete (&p, err, sizeof err), -EINVAL, "role= and control=");
}

int
main (void)
{
  draining ();
  marks ();
  stuck ();
  parameters ();
  return tap_done ();
}
