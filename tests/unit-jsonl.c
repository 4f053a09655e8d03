/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON lines: streams cut into pieces of every size, bounds reached exactly and by one byte more,
 * a peer that doesn't read, sockets with the right mode, stale and live ones in the way.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/jsonl.h"
#include "common/util-posix.h"
#include "tests/tap.h"

static int
count_until (struct jsonl_reader *r, int *status)
{
  json_t *obj;
  int n = 0;

  while ((*status = jsonl_reader_next (r, &obj, NULL)) == 1) {
    check (json_integer_value (json_object_get (obj, "n")) == n % 3, "object %d in order", n);
    json_decref (obj);
    n++;
  }
  check (obj == NULL, "no object is left over");
  return n;
}

static void
pieces (void)
{
  static const char text[] = "{\"n\":0}\n\n  \r\n{\"n\":1,\"text\":\"a\\nb { [\"}\r\n{\"n\":2,\"o\":{}}\n";
  size_t len = sizeof text - 1, size, at;
  struct jsonl_reader r;
  int got, status;

  for (size = 1; size <= len; size++) {
    jsonl_reader_init (&r, 0);
    got = 0;
    for (at = 0; at < len; at += size) {
      int n;

      check (jsonl_reader_append (&r, text + at, MIN (size, len - at)) == 0, "taken in");
      n = 0;
      for (;;) {
        CLEANUP_JSON json_t *obj = NULL;

        status = jsonl_reader_next (&r, &obj, NULL);
        if (status != 1)
          break;
        check (json_integer_value (json_object_get (obj, "n")) == got + n, "in order");
        n++;
      }
      check (status == 0, "wants more");
      got += n;
    }
    check (got == 3, "three objects in pieces of %zu", size);
    jsonl_reader_free (&r);
  }
  jsonl_reader_init (&r, 0);
  jsonl_reader_append (&r, text, len);
  check (count_until (&r, &status) == 3 && status == 0, "all at once");
  jsonl_reader_free (&r);
  ok (tap_failed == 0, "a stream cut into pieces of every size");
}

static int
feed (struct jsonl_reader *r, const char *text, json_error_t *error)
{
  json_t *obj;
  int ret = jsonl_reader_append (r, text, strlen (text));

  if (ret == 0)
    ret = jsonl_reader_next (r, &obj, error);
  if (ret == 1)
    json_decref (obj);
  return ret;
}

static void
refused (void)
{
  static const char *const bad[] = {
    "[1]\n", "1\n", "null\n", "\"x\"\n", "{\n", "{]\n", "nonsense\n", "{\"a\":1}x\n",
    "{\"a\":1,\"a\":2}\n", "{\"a\":\"\xff\"}\n", "{}{}\n", "{\"a\":01}\n",
  };
  struct jsonl_reader r;
  json_error_t error;
  char *deep;
  unsigned i;

  for (i = 0; i < ARRAY_SIZE (bad); i++) {
    jsonl_reader_init (&r, 0);
    error.text[0] = '\0';
    ok (feed (&r, bad[i], &error) == -EPROTO && error.text[0], "refused (%s): %s", error.text,
        strtok (strdupa (bad[i]), "\n"));
    check (feed (&r, "{}\n", NULL) == -EPROTO, "and so is everything after it");
    jsonl_reader_free (&r);
  }

  /* {"a":{"a": ... }}: JSONL_MAX_DEPTH is fine, one more is not; brackets in strings don't count. */
  for (i = JSONL_MAX_DEPTH; i <= JSONL_MAX_DEPTH + 1; i++) {
    unsigned k;

    deep = calloc (1, 8 * i);
    for (k = 0; k + 1 < i; k++)
      strcat (deep, "{\"a\":");
    strcat (deep, "{}");
    for (k = 0; k + 1 < i; k++)
      strcat (deep, "}");
    strcat (deep, "\n");
    jsonl_reader_init (&r, 0);
    is (feed (&r, deep, NULL), i == JSONL_MAX_DEPTH ? 1 : -EPROTO, "depth");
    jsonl_reader_free (&r);
    free (deep);
  }
  jsonl_reader_init (&r, 0);
  is (feed (&r, "{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[\"}\n", NULL), 1,
      "brackets in a string are no depth");
  jsonl_reader_free (&r);
}

static void
bounds (void)
{
  enum { MAX = 1000 };
  static char line[MAX + 4], flood[64 * 1024];
  struct jsonl_reader r;
  struct jsonl_writer w;
  json_t *obj;
  int extra, n, ret;

  for (extra = -1; extra <= 1; extra++) {
    memset (line, 0, sizeof line);
    memset (line, ' ', MAX + (size_t) extra);
    memcpy (line, "{\"a\":1}", 7);
    line[MAX + extra] = '\n';
    jsonl_reader_init (&r, MAX);
    is (feed (&r, line, NULL), extra <= 0 ? 1 : -EMSGSIZE, "a line at its maximum, and one byte more");
    jsonl_reader_free (&r);
    /* The same, its newline not yet there. */
    line[MAX + extra] = '\0';
    jsonl_reader_init (&r, MAX);
    is (feed (&r, line, NULL), extra <= 0 ? 0 : -EMSGSIZE, "the same without its end");
    jsonl_reader_free (&r);
  }
  memset (flood, 'x', sizeof flood);
  jsonl_reader_init (&r, MAX);
  is (jsonl_reader_append (&r, flood, sizeof flood), -EMSGSIZE, "a flood is not even stored");
  ok (r.cap < sizeof flood, "nor allocated");
  is (jsonl_reader_append (&r, "{}\n", 3), -EPROTO, "and the stream is lost");
  jsonl_reader_free (&r);

  obj = json_pack ("{s:s}", "k", "0123456789"); /* 18 bytes and a newline */
  jsonl_writer_init (&w, 19 * 10 + 18);
  for (n = 0; (ret = jsonl_writer_put (&w, obj)) == 0; n++)
    ;
  is (ret, -ENOBUFS, "output is bounded");
  is (n, 10, "exactly");
  is (w.len, 190, "and what was queued stays");
  jsonl_writer_free (&w);
  json_decref (obj);

  jsonl_writer_init (&w, 0);
  memset (flood, 'y', sizeof flood - 1);
  flood[sizeof flood - 1] = '\0';
  obj = json_object ();
  for (n = 0; n < 17; n++) {
    char key[8];

    snprintf (key, sizeof key, "%d", n);
    json_object_set_new (obj, key, json_string (flood));
  }
  is (jsonl_writer_put (&w, obj), -EMSGSIZE, "a line too long for any reader is not sent");
  ok (!jsonl_writer_pending (&w), "no part of it");
  json_decref (obj);
  jsonl_writer_free (&w);
}

/* A peer that doesn't read: the writer says so, keeps order, and goes on when it reads. */
static void
slow_peer (void)
{
  struct jsonl_reader r;
  struct jsonl_writer w;
  int fds[2], sent, got, ret, size = 4096, i;
  json_t *obj;

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
    abort ();
  setsockopt (fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  jsonl_reader_init (&r, 0);
  jsonl_writer_init (&w, 0);
  is (jsonl_reader_fill (&r, fds[1]), -EAGAIN, "nothing to read yet");

  for (sent = 0; sent < 5000; sent++) {
    obj = json_pack ("{s:i,s:s}", "n", sent % 3, "pad", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    check (jsonl_writer_put (&w, obj) == 0, "queued");
    json_decref (obj);
  }
  is (jsonl_writer_flush (&w, fds[0]), 1, "the peer doesn't read: some is left");
  ok (jsonl_writer_pending (&w), "and pending");
  for (got = 0, i = 0; got < sent && i < 100000; i++) {
    ssize_t n = jsonl_reader_fill (&r, fds[1]);

    check (n > 0 || n == -EAGAIN, "read %zd", n);
    for (;;) {
      ret = jsonl_reader_next (&r, &obj, NULL);
      if (ret != 1)
        break;
      check (json_integer_value (json_object_get (obj, "n")) == got % 3, "object %d in order", got);
      json_decref (obj);
      got++;
    }
    check (ret == 0, "no error");
    check (jsonl_writer_flush (&w, fds[0]) >= 0, "flush");
  }
  is (got, sent, "everything arrives, in order");
  ok (!jsonl_writer_pending (&w) && w.buf == NULL, "and the large buffer is given back");

  close (fds[1]);
  obj = json_pack ("{s:i}", "n", 1);
  jsonl_writer_put (&w, obj);
  is (jsonl_writer_flush (&w, fds[0]), -EPIPE, "a peer that is gone is an error, not a signal");
  is (jsonl_send (fds[0], obj, 100), -EPIPE, "for simple clients too");
  json_decref (obj);
  jsonl_reader_free (&r);
  jsonl_writer_free (&w);
  close (fds[0]);
}

static void
sockets (void)
{
  char dir[] = "/tmp/crg-jsonl-XXXXXX", path[64], longer[200];
  const char *shown;
  CLEANUP_CLOSE int l = -1, c = -1, a = -1;
  struct jsonl_reader r;
  struct stat st;
  json_t *obj = NULL, *request = json_pack ("{s:s}", "cmd", "status");
  pid_t pid = 0;
  uid_t uid = 77777;
  gid_t gid = 77777;
  uint64_t t;
  int fd, ret, n, queued[JSONL_BACKLOG + 8];

  if (!mkdtemp (dir))
    abort ();
  snprintf (path, sizeof path, "%s/s", dir);

  is (jsonl_connect (path, -1), -ENOENT, "nobody there");
  l = jsonl_listen (path, 0660);
  ok (l >= 0, "listens");
  stat (path, &st);
  is (st.st_mode & 07777, 0660, "with the mode that was asked for");
  ok (fcntl (l, F_GETFD) & FD_CLOEXEC && fcntl (l, F_GETFL) & O_NONBLOCK,
      "close-on-exec and non-blocking");
  is (jsonl_accept (l), -EAGAIN, "nobody yet");
  c = jsonl_connect (path, -1);
  ok (c >= 0 && fcntl (c, F_GETFD) & FD_CLOEXEC, "connects");
  a = jsonl_accept (l);
  ok (a >= 0 && fcntl (a, F_GETFD) & FD_CLOEXEC && fcntl (a, F_GETFL) & O_NONBLOCK, "accepts");
  ok (jsonl_peer (a, &pid, &uid, &gid) == 0 && pid == getpid () && uid == geteuid ()
        && gid == getegid (),
      "knows who");
  ok (jsonl_peer (a, NULL, NULL, NULL) == 0, "or doesn't want to");

  jsonl_reader_init (&r, 0);
  is (jsonl_send (c, request, 1000), 0, "sends");
  ret = jsonl_receive (a, &r, 1000, &obj);
  ok (ret == 0 && json_equal (obj, request), "receives the same");
  json_decref (obj);
  t = clock_boottime_ms ();
  is (jsonl_receive (a, &r, 100, &obj), -ETIMEDOUT, "nothing more comes");
  shown = "{\"why\":\"\\u001b[31m\\u009b\",\"list\":[{\"x\":\"a\\nb\\u007f\"},7,\"plain \xc3\xa9\"]}\n";
  ok (write (c, shown, strlen (shown)) == (ssize_t) strlen (shown) && jsonl_receive (a, &r, 1000, &obj) == 0, "text with control characters");
  is_str (json_string_value (json_object_get (obj, "why")), "\\x1b[31m\\xc2\\x9b", "it can be shown");
  is_str (json_string_value (json_object_get (json_array_get (json_object_get (obj, "list"), 0), "x")), "a\\x0ab\\x7f", "however deep it is");
  is_str (json_string_value (json_array_get (json_object_get (obj, "list"), 2)), "plain \xc3\xa9", "and other text stays");
  json_decref (obj);
  t = clock_boottime_ms () - t;
  ok (t >= 100 && t < 2000, "after 100 ms (%d)", (int) t);
  shutdown (c, SHUT_WR);
  is (jsonl_receive (a, &r, -1, &obj), -ECONNRESET, "the end of the stream");
  jsonl_reader_free (&r);

  is (jsonl_listen (path, 0600), -EADDRINUSE, "a live socket is not taken over");
  ok ((fd = jsonl_connect (path, -1)) >= 0, "and lives on");
  close (fd);

  /* A listener that is busy, its queue full, is live too. */
  for (n = 0; n < JSONL_BACKLOG + 8; n++) {
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    strcpy (addr.sun_path, path);
    queued[n] = socket (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect (queued[n], (struct sockaddr *) &addr, sizeof addr) < 0)
      break;
  }
  ok (n < JSONL_BACKLOG + 8 && errno == EAGAIN, "its queue is full after %d", n);
  is (jsonl_listen (path, 0600), -EADDRINUSE, "and it is not taken over");
  alarm (20);
  is (jsonl_connect (path, 50), -ETIMEDOUT, "who connects to it waits no longer than told");
  alarm (0);
  for (; n >= 0; n--)
    close (queued[n]);

  close (l);
  l = -1;
  is (jsonl_connect (path, -1), -ECONNREFUSED, "now it is stale");
  l = jsonl_listen (path, 0600);
  ok (l >= 0, "and replaced");
  stat (path, &st);
  is (st.st_mode & 07777, 0600, "with the new mode");
  close (l);
  l = -1;
  unlink (path);
  fd = open (path, O_CREAT | O_WRONLY, 0600);
  close (fd);
  is (jsonl_listen (path, 0600), -ENOTSOCK, "a file in the way is not removed");
  ok (access (path, F_OK) == 0, "it is still there");
  unlink (path);

  memset (longer, 'x', sizeof longer - 1);
  longer[sizeof longer - 1] = '\0';
  is (jsonl_listen (longer, 0600), -ENAMETOOLONG, "a path too long to listen on");
  is (jsonl_connect (longer, -1), -ENAMETOOLONG, "or to connect to");
  is (jsonl_listen ("", 0600), -EINVAL, "no path");

  json_decref (request);
  rmdir (dir);
}

/* The same without a stream. */
static void
test_parse (void)
{
  struct jsonl_reader r;
  json_error_t error;
  char deep[400];
  json_t *obj;

  obj = jsonl_parse ("{\"a\":[1]} ", 10, &error);
  ok (obj && json_object_size (obj) == 1, "an object");
  json_decref (obj);
  ok (!jsonl_parse ("[1]", 3, &error) && strcmp (error.text, "not an object") == 0, "a list is none");
  ok (!jsonl_parse ("{\"a\":1,\"a\":2}", 13, &error) && error.text[0], "a key twice: %s", error.text);
  ok (!jsonl_parse ("{\"a\"", 4, NULL) && !jsonl_parse ("{\"a\\", 4, &error) && !jsonl_parse ("}{", 2, &error)
          && !jsonl_parse ("7", 1, NULL), "half of one, or none");
  jsonl_reader_init (&r, 0);
  ok (jsonl_reader_append (&r, "\t \r\n{}\n7\n", 10) == 0 && jsonl_reader_next (&r, &obj, NULL) == 1, "blank lines are none");
  json_decref (obj);
  ok (jsonl_reader_next (&r, &obj, NULL) == -EPROTO && jsonl_reader_next (&r, &obj, NULL) == -EPROTO
          && jsonl_reader_next (&r, &obj, &error) == -EPROTO && error.text[0], "a stream that failed stays so: %s", error.text);
  jsonl_reader_free (&r);
  for (unsigned n = 1; n <= JSONL_MAX_DEPTH + 1; n++) {
    size_t len = 0;

    for (unsigned i = 0; i < n - 1; i++)
      len += (size_t) sprintf (deep + len, "{\"\\\"{\":");
    len += (size_t) sprintf (deep + len, "{");
    for (unsigned i = 0; i < n; i++)
      len += (size_t) sprintf (deep + len, "}");
    obj = jsonl_parse (deep, len, &error);
    check ((obj != NULL) == (n <= JSONL_MAX_DEPTH), "depth %u: %s", n, obj ? "" : error.text);
    json_decref (obj);
  }
  ok (tap_failed == 0, "no deeper than %d, whatever strings hold", JSONL_MAX_DEPTH);
}

/* What people are told may be cut anywhere, or name a file of any bytes: it is sent all the same. */
static void
texts (void)
{
  static const struct {
    const char *from, *to;
  } t[] = {
    { "", "" }, { "plain", "plain" }, { "\xc3\xa9t\xc3\xa9", "\xc3\xa9t\xc3\xa9" }, { "caf\xc3", "caf?" },
    { "\xe2\x82", "??" }, { "\xf0\x9f\x98\x80!", "\xf0\x9f\x98\x80!" }, { "\xf0\x9f\x98", "???" },
    { "/srv/\xe9t\xe9", "/srv/?t?" }, { "\xc0\x80", "??" }, { "\xed\xa0\x80", "???" }, { "\xff\xc3\xa9", "?\xc3\xa9" },
  };
  struct jsonl_writer w;

  for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
    json_t *string = jsonl_string (t[i].from);

    ok (string && strcmp (json_string_value (string), t[i].to) == 0, "text %u", i);
    json_decref (string);
  }
  jsonl_writer_init (&w, 0);
  is (jsonl_writer_put (&w, json_pack ("{s:s}", "error", "caf\xc3")), -ENOMEM, "what could not be made is an error, no crash");
  jsonl_writer_free (&w);
}

int
main (void)
{
  pieces ();
  texts ();
  test_parse ();
  refused ();
  bounds ();
  slow_peer ();
  sockets ();
  return tap_done ();
}
