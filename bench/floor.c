/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The floor: what mirroring over TLS costs when nothing else is done.
 *
 * One process writes blocks to its own file and sends the same bytes through
 * one TLS 1.3 connection to a second process, which writes them and answers
 * with a cumulative acknowledgement.  No NBD, no ranges, no tracking, no
 * group: a mirror can't be faster than this on the same machine, so the
 * benchmark measures it beside the real thing.  It is a program of the
 * benchmark and is never installed.
 *
 * floor LOCAL REMOTE CERT KEY BLOCK QD SECONDS rand|seq|copy SIZE
 *
 * copy: the local file is read, not written, as a resync does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#define BLOCK_MAX (4u << 20)
#define QD_MAX 256u
#define SAMPLES_MAX (4u << 20)

struct header {
  uint64_t offset;
  uint64_t length;
};

static void
die (const char *what)
{
  perror (what);
  ERR_print_errors_fp (stderr);
  exit (1);
}

static double
now_s (void)
{
  struct timespec t;
  clock_gettime (CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void
read_all (SSL *ssl, void *buf, size_t n)
{
  for (size_t got = 0, r; got < n; got += r)
    if (SSL_read_ex (ssl, (char *) buf + got, n - got, &r) != 1)
      die ("SSL_read");
}

static void
write_all (SSL *ssl, const void *buf, size_t n)
{
  for (size_t put = 0, r; put < n; put += r)
    if (SSL_write_ex (ssl, (const char *) buf + put, n - put, &r) != 1)
      die ("SSL_write");
}

static SSL *
handshake (int fd, int server, const char *cert, const char *key)
{
  SSL_CTX *ctx = SSL_CTX_new (server ? TLS_server_method ()
                                     : TLS_client_method ());
  SSL *ssl;
  int on = 1;

  if (!ctx || !SSL_CTX_set_min_proto_version (ctx, TLS1_3_VERSION))
    die ("SSL_CTX_new");
  if (server &&
      (SSL_CTX_use_certificate_chain_file (ctx, cert) != 1 ||
       SSL_CTX_use_PrivateKey_file (ctx, key, SSL_FILETYPE_PEM) != 1))
    die (cert);
  setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ssl = SSL_new (ctx);
  if (!ssl || SSL_set_fd (ssl, fd) != 1 ||
      (server ? SSL_accept (ssl) : SSL_connect (ssl)) != 1)
    die ("TLS handshake");
  return ssl;
}

/* Writes what comes and acknowledges when no more is waiting. */
static int
remote (int fd, const char *path, const char *cert, const char *key)
{
  SSL *ssl = handshake (fd, 1, cert, key);
  char *buf = malloc (BLOCK_MAX);
  int file = open (path, O_RDWR | O_CREAT, 0600);
  uint64_t done = 0;
  struct header h;

  if (!buf || file < 0)
    die (path);
  for (;;) {
    read_all (ssl, &h, sizeof h);
    if (h.length == 0 || h.length > BLOCK_MAX)
      return h.length != 0;
    read_all (ssl, buf, h.length);
    if (pwrite (file, buf, h.length, h.offset) != (ssize_t) h.length)
      die ("pwrite");
    done++;
    if (!SSL_has_pending (ssl))
      write_all (ssl, &done, sizeof done);
  }
}

static int
compare_double (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;
  return x < y ? -1 : x > y;
}

int
main (int argc, char **argv)
{
  if (argc != 10) {
    fprintf (stderr, "usage: floor LOCAL REMOTE CERT KEY BLOCK QD SECONDS "
                     "rand|seq|copy SIZE\n");
    return 2;
  }
  const uint64_t block = strtoull (argv[5], NULL, 0);
  const uint64_t qd = strtoull (argv[6], NULL, 0);
  const double seconds = atof (argv[7]);
  const int is_random = argv[8][0] == 'r', is_copy = argv[8][0] == 'c';
  const uint64_t size = strtoull (argv[9], NULL, 0);

  if (block == 0 || block > BLOCK_MAX || qd == 0 || qd > QD_MAX ||
      size < block || !(seconds > 0) || seconds > 600) {
    fprintf (stderr, "floor: a figure is out of range\n");
    return 2;
  }

  struct sockaddr_in sa = { .sin_family = AF_INET };
  socklen_t sl = sizeof sa;
  int lfd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sa.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
  if (lfd < 0 || bind (lfd, (void *) &sa, sizeof sa) || listen (lfd, 1) ||
      getsockname (lfd, (void *) &sa, &sl))
    die ("socket");
  pid_t pid = fork ();
  if (pid < 0)
    die ("fork");
  if (pid == 0) {
    int fd = accept (lfd, NULL, NULL);
    if (fd < 0)
      die ("accept");
    _exit (remote (fd, argv[2], argv[3], argv[4]));
  }
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect (fd, (void *) &sa, sizeof sa))
    die ("connect");
  SSL *ssl = handshake (fd, 0, NULL, NULL);
  int file = open (argv[1], O_RDWR | O_CREAT, 0600);
  char *buf = malloc (sizeof (struct header) + block);
  double *lat = malloc (SAMPLES_MAX * sizeof *lat);
  static double begun[QD_MAX];
  if (file < 0 || !buf || !lat)
    die (argv[1]);
  memset (buf, 0x5a, sizeof (struct header) + block);

  uint64_t sent = 0, done = 0, position = 0, seed = 88172645463325252ull;
  const double start = now_s ();
  double t = start;
  while (t - start < seconds || done < sent) {
    if (t - start < seconds && sent - done < qd) {
      struct header h = { .length = block };
      if (is_random) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        h.offset = seed % (size / block) * block;
      }
      else {
        h.offset = position;
        position = position + 2 * block > size ? 0 : position + block;
      }
      memcpy (buf, &h, sizeof h);
      begun[sent % QD_MAX] = t;
      if (is_copy && pread (file, buf + sizeof h, block, h.offset) != (ssize_t) block)
        die ("pread");
      write_all (ssl, buf, sizeof h + block);
      if (!is_copy && pwrite (file, buf + sizeof h, block, h.offset) != (ssize_t) block)
        die ("pwrite");
      sent++;
    }
    else {
      uint64_t upto;
      read_all (ssl, &upto, sizeof upto);
      t = now_s ();
      for (; done < upto; done++)
        if (done < SAMPLES_MAX)
          lat[done] = (t - begun[done % QD_MAX]) * 1e6;
      continue;
    }
    t = now_s ();
  }
  const double elapsed = now_s () - start;
  const struct header end = { 0 };
  write_all (ssl, &end, sizeof end);
  int status;
  if (waitpid (pid, &status, 0) != pid || status != 0)
    die ("remote");

  struct rusage self, child;
  getrusage (RUSAGE_SELF, &self);
  getrusage (RUSAGE_CHILDREN, &child);
  double cpu = 0;
  for (struct rusage *r = &self; r; r = r == &self ? &child : NULL)
    cpu += r->ru_utime.tv_sec + r->ru_stime.tv_sec +
           (r->ru_utime.tv_usec + r->ru_stime.tv_usec) / 1e6;
  const uint64_t n = done < SAMPLES_MAX ? done : SAMPLES_MAX;
  if (n == 0)
    die ("nothing was written");
  qsort (lat, n, sizeof *lat, compare_double);
  printf ("{\"ops\": %llu, \"iops\": %.0f, \"mb_s\": %.1f, \"lat_us\": %.1f, \"p99_us\": %.1f, "
          "\"cpu_us_per_op\": %.2f, \"rss_mib\": %.1f}\n",
          (unsigned long long) done, done / elapsed, done * block / elapsed / 1e6, lat[n / 2],
          lat[(uint64_t) (n * 0.99)], cpu * 1e6 / done,
          (self.ru_maxrss + child.ru_maxrss) / 1024.0);
  return 0;
}
