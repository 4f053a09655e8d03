/* SPDX-License-Identifier: BSD-3-Clause */
/* recorder run|check|wait: options and nothing else.  See recorder.h for what it is.
 */
#include <config.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/recorder/recorder.h"

static const char usage_text[] =
  "recorder run --log FILE (--uri URI | --uri-command CMD) [options]\n"
  "    writes, reads and flushes until --count operations are done or --seconds are over,\n"
  "    or SIGTERM; FILE must not exist; prints one line of JSON\n"
  "  --connections N (4)   --depth N (4, requests in flight on each)\n"
  "  --blocks N (512, of 4 KiB)   --offset BYTES (0)   --seed N\n"
  "  --count N (0: no bound)   --seconds N (10)   --rate N (0: operations a second, all)\n"
  "  --reads PERCENT (25)   --fua PERCENT (5)   --flush-every N (16)\n"
  "  --op-timeout MS (3000: ask again where production is)   --drain MS (10000)\n"
  "  --tls-certificates DIR\n"
  "  --apart   never two requests at a time on one block, if one is a write: for servers that\n"
  "            promise nothing then (a plain file)\n"
  "recorder check --log FILE [--uri URI | --uri-command CMD | --image FILE]\n"
  "    reads every block back and judges the history; exit 0 good, 1 violation, 2 trouble\n"
  "recorder wait --log FILE --more N [--timeout MS (30000)]\n"
  "    waits until N more requests are answered; prints the milliseconds\n"
  "recorder loss --log FILE [--at NS]\n"
  "    notes that all machines lost their power then (now): answered writes that were not\n"
  "    flushed may be gone\n"
  "recorder now\n"
  "    prints the instant for --at\n";

/* Counts answers from now on. */
int
rec_wait (const struct rec_options *opt)
{
  FILE *f = fopen (opt->log, "re");
  char line[2048];
  unsigned long more = 0;
  uint64_t begun = rec_now ();

  if (!f) {
    perror (opt->log);
    return 2;
  }
  fseek (f, 0, SEEK_END);
  while (more < opt->more) {
    struct timespec ts = { 0, 2000000 };

    clearerr (f);
    while (fgets (line, sizeof line, f))
      if ((line[0] == 'W' || line[0] == 'R' || line[0] == 'F') && !strstr (line, " err "))
        more++;
    if (rec_now () - begun > (uint64_t) opt->timeout_ms * 1000000u)
      break;
    nanosleep (&ts, NULL);
  }
  fclose (f);
  printf ("%llu\n", (unsigned long long) (rec_now () - begun) / 1000000);
  if (more < opt->more)
    fprintf (stderr, "recorder: only %lu of %u answers in %u ms\n", more, opt->more,
             opt->timeout_ms);
  return more >= opt->more ? 0 : 1;
}

/* Says that what was answered and not flushed until then may be gone. */
int
rec_loss (const struct rec_options *opt)
{
  FILE *f = fopen (opt->log, "ae");
  uint64_t at = opt->at ? opt->at : rec_now ();

  /* One write, as the recorder's own lines. */
  if (!f || fprintf (f, "loss %llu\n", (unsigned long long) at) < 0 || fclose (f) != 0) {
    perror (opt->log);
    return 2;
  }
  return 0;
}

static void
usage (void)
{
  fputs (usage_text, stderr);
  exit (2);
}

static uint64_t
number (const char *s, uint64_t min, uint64_t max)
{
  char *end;
  unsigned long long v = strtoull (s, &end, 0);

  if (*end || end == s || v < min || v > max) {
    fprintf (stderr, "recorder: %s: want a number from %llu to %llu\n", s,
             (unsigned long long) min, (unsigned long long) max);
    exit (2);
  }
  return v;
}

int
main (int argc, char **argv)
{
  enum { LOG = 1, URI, URI_COMMAND, TLS, IMAGE, CONNECTIONS, DEPTH, BLOCKS, OFFSET, COUNT, SECONDS,
         RATE, READS, FUA, FLUSH, OP_TIMEOUT, DRAIN, SEED, MORE, TIMEOUT, APART, AT };
  static const struct option options[] = {
    { "log", 1, 0, LOG }, { "uri", 1, 0, URI }, { "uri-command", 1, 0, URI_COMMAND },
    { "tls-certificates", 1, 0, TLS }, { "image", 1, 0, IMAGE },
    { "connections", 1, 0, CONNECTIONS }, { "depth", 1, 0, DEPTH }, { "blocks", 1, 0, BLOCKS },
    { "offset", 1, 0, OFFSET }, { "count", 1, 0, COUNT }, { "seconds", 1, 0, SECONDS },
    { "rate", 1, 0, RATE }, { "reads", 1, 0, READS }, { "fua", 1, 0, FUA },
    { "flush-every", 1, 0, FLUSH }, { "op-timeout", 1, 0, OP_TIMEOUT }, { "drain", 1, 0, DRAIN },
    { "seed", 1, 0, SEED }, { "more", 1, 0, MORE }, { "timeout", 1, 0, TIMEOUT }, { "apart", 0, 0, APART },
    { "at", 1, 0, AT }, { 0 },
  };
  struct rec_options opt = { .connections = 4, .depth = 4, .blocks = 512, .seconds = 10,
                             .reads = 25, .fua = 5, .flush_every = 16, .op_timeout_ms = 3000,
                             .drain_ms = 10000, .more = 1, .timeout_ms = 30000 };
  int c;

  opt.seed = (uint64_t) time (NULL);
  if (argc < 2)
    usage ();
  if (argc == 2 && strcmp (argv[1], "now") == 0) {
    printf ("%llu\n", (unsigned long long) rec_now ());
    return 0;
  }
  while ((c = getopt_long (argc - 1, argv + 1, "", options, NULL)) != -1)
    switch (c) {
    case LOG: opt.log = optarg; break;
    case URI: opt.uri = optarg; break;
    case URI_COMMAND: opt.uri_command = optarg; break;
    case TLS: opt.tls_certificates = optarg; break;
    case IMAGE: opt.image = optarg; break;
    case CONNECTIONS: opt.connections = (unsigned) number (optarg, 1, REC_MAX_CONNECTIONS); break;
    case DEPTH: opt.depth = (unsigned) number (optarg, 1, REC_MAX_DEPTH); break;
    case BLOCKS: opt.blocks = (uint32_t) number (optarg, 1, REC_MAX_BLOCKS); break;
    case OFFSET: opt.offset = number (optarg, 0, INT64_MAX / 2); break;
    case COUNT: opt.count = number (optarg, 0, UINT64_C (1) << 40); break;
    case SECONDS: opt.seconds = (unsigned) number (optarg, 1, 86400); break;
    case RATE: opt.rate = (unsigned) number (optarg, 0, 1000000); break;
    case READS: opt.reads = (unsigned) number (optarg, 0, 100); break;
    case FUA: opt.fua = (unsigned) number (optarg, 0, 100); break;
    case FLUSH: opt.flush_every = (unsigned) number (optarg, 0, 1000000); break;
    case OP_TIMEOUT: opt.op_timeout_ms = (unsigned) number (optarg, 0, 3600000); break;
    case DRAIN: opt.drain_ms = (unsigned) number (optarg, 0, 3600000); break;
    case SEED: opt.seed = number (optarg, 0, UINT64_MAX); break;
    case MORE: opt.more = (unsigned) number (optarg, 1, 100000000); break;
    case TIMEOUT: opt.timeout_ms = (unsigned) number (optarg, 1, 3600000); break;
    case APART: opt.apart = true; break;
    case AT: opt.at = number (optarg, 1, INT64_MAX); break;
    default: usage ();
    }
  if (optind != argc - 1 || !opt.log || !!opt.uri + !!opt.uri_command + !!opt.image > 1)
    usage ();
  if (strcmp (argv[1], "run") == 0) {
    if (!opt.uri && !opt.uri_command)
      usage ();
    return rec_run (&opt);
  }
  if (strcmp (argv[1], "check") == 0)
    return rec_check (&opt);
  if (strcmp (argv[1], "wait") == 0)
    return rec_wait (&opt);
  if (strcmp (argv[1], "loss") == 0)
    return rec_loss (&opt);
  usage ();
}
