/* SPDX-License-Identifier: BSD-3-Clause */
/* Fuzz target: the plugin's control socket.  A real engine with a store of its own takes the bytes as a
 * controller's; then another controller has to be answered, and gets the role back.  To be run where
 * it can reach no network: a controller may name any address.  FUZZ_PKI: certificates of node n0.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/jsonl.h"
#include "plugin/engine.h"
#include "plugin/iasp.h"
#include "tests/fuzz/mutate-json.h"

#define REQUIRE(cond) \
  do {                \
    if (!(cond))      \
      abort ();       \
  } while (0)

#define SIZE       (4 << 20)
#define ANSWER_MS  30000
#define LAST       987654321

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static struct iasp ia;

/* New: no superblock. */
static void
fresh_store (void)
{
  REQUIRE (truncate ("store", 0) == 0 && truncate ("store", 3 * SIZE) == 0);
}

static void
begin (void)
{
  static const char *const settings[][2] = {
    { "name", "payroll" }, { "node", "n0" }, { "site", "rome" }, { "crg", "wages" }, { "size", "4194304" }, { "dirty-block", "65536" },
    { "cluster-id", "11111111111111111111111111111111" }, { "crg-id", "22222222222222222222222222222222" },
    { "iasp-id", "33333333333333333333333333333333" }, { "lineage", "44444444444444444444444444444444" },
    { "listen", "127.0.0.1:10810" },
  };
  static const char *const pki[][2] = {
    { "tls-ca", "ca-cert.pem" }, { "tls-cert", "n0-cert.pem" }, { "tls-key", "n0-key.pem" },
  };
  char err[1024], cwd[512], path[1024];
  int fd = open ("store", O_RDWR | O_CREAT, 0600);

  REQUIRE (fd >= 0 && getcwd (cwd, sizeof cwd));
  close (fd);
  signal (SIGPIPE, SIG_IGN);
  params_init (&ia.p);
  for (unsigned i = 0; i < sizeof settings / sizeof settings[0]; i++)
    REQUIRE (params_set (&ia.p, settings[i][0], settings[i][1], err, sizeof err) >= 0);
  for (unsigned i = 0; i < sizeof pki / sizeof pki[0]; i++) {
    snprintf (path, sizeof path, "%s/%s", getenv ("FUZZ_PKI") ?: cwd, pki[i][1]);
    REQUIRE (params_set (&ia.p, pki[i][0], path, err, sizeof err) >= 0);
  }
  snprintf (path, sizeof path, "%s/store", cwd);
  REQUIRE (params_set (&ia.p, "store", path, err, sizeof err) >= 0);
  snprintf (path, sizeof path, "%s/ctl", cwd);
  REQUIRE (params_set (&ia.p, "control", path, err, sizeof err) >= 0);
  if (params_complete (&ia.p, err, sizeof err) < 0) {
    fprintf (stderr, "%s\n", err);
    abort ();
  }
  REQUIRE (store_load () == 0);
  store_init (&ia.store);
  session_table_init (&ia.sessions);
  gate_init (&ia.gate, GATE_CLOSED, UINT64_MAX);
  ia.engine = engine_new (&ia, err, sizeof err);
  if (!ia.engine || engine_start (ia.engine, err, sizeof err) != 0) {
    fprintf (stderr, "%s\n", err);
    abort ();
  }
}

/* Sends the bytes, then one more command; true if that is answered, false if the plugin hangs up. */
static bool
talk (const void *data, size_t size, const char *last)
{
  struct jsonl_reader r;
  int fd = jsonl_connect ("ctl", -1);
  bool answered = false;
  json_t *obj;

  REQUIRE (fd >= 0);
  jsonl_reader_init (&r, 0);
  if (send (fd, data, size, MSG_NOSIGNAL) >= 0 && send (fd, last, strlen (last), MSG_NOSIGNAL) >= 0)
    while (!answered) {
      int res = jsonl_receive (fd, &r, ANSWER_MS, &obj);

      REQUIRE (res != -ETIMEDOUT); /* it hangs */
      if (res != 0)
        break;
      answered = json_integer_value (json_object_get (obj, "id")) == LAST;
      json_decref (obj);
    }
  jsonl_reader_free (&r);
  close (fd);
  return answered;
}

/* quit ends the process, as it should. */
static bool
has_quit (const void *data, size_t size)
{
  struct jsonl_reader r;
  bool found = false;
  json_t *obj;

  jsonl_reader_init (&r, 0);
  if (jsonl_reader_append (&r, data, size) == 0 && jsonl_reader_append (&r, "\n", 1) == 0)
    while (!found && jsonl_reader_next (&r, &obj, NULL) == 1) {
      const char *cmd = json_string_value (json_object_get (obj, "cmd"));

      found = cmd && strcmp (cmd, "quit") == 0;
      json_decref (obj);
    }
  jsonl_reader_free (&r);
  return found;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const char resume[] = "{\"v\":1,\"id\":1,\"cmd\":\"resume\"}\n";
  static bool begun;

  if (!begun)
    begin ();
  begun = true;
  fresh_store ();
  if (size > 16384 || has_quit (data, size))
    return 0;
  talk (data, size, "\n{\"v\":1,\"id\":987654321,\"cmd\":\"status\"}\n");
  /* Whatever that was: the next controller is heard, and everything can be taken back. */
  REQUIRE (talk (resume, sizeof resume - 1,
                 "{\"v\":1,\"id\":987654321,\"cmd\":\"role\",\"role\":\"none\",\"wait_ms\":0}\n"));
  return 0;
}
