/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON lines over a Unix stream socket.  Owns only the buffers in its structures; one thread at
 * a time for each.  Never blocks on a non-blocking descriptor, never raises SIGPIPE, never holds
 * more than its bounds, whatever the peer sends or leaves unread.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "common/util-posix.h"
#include "common/visible.h"

#define READ_CHUNK (16 * 1024)

void
jsonl_reader_init (struct jsonl_reader *r, size_t max_line)
{
  memset (r, 0, sizeof *r);
  r->max_line = max_line ? max_line : JSONL_MAX_LINE;
}

void
jsonl_reader_free (struct jsonl_reader *r)
{
  free (r->buf);
  memset (r, 0, sizeof *r);
}

void
jsonl_writer_init (struct jsonl_writer *w, size_t max_out)
{
  memset (w, 0, sizeof *w);
  w->max_out = max_out ? max_out : JSONL_MAX_OUT;
}

void
jsonl_writer_free (struct jsonl_writer *w)
{
  free (w->buf);
  memset (w, 0, sizeof *w);
}

/* Room for 'more' bytes behind the first 'len' of a buffer; doubles, up to what is needed. */
static int
grow (char **buf, size_t *cap, size_t len, size_t more)
{
  size_t want = *cap ? *cap : 4096;
  char *p;

  if (*cap - len >= more)
    return 0;
  while (want - len < more)
    want *= 2;
  p = realloc (*buf, want);
  if (!p)
    return -ENOMEM;
  *buf = p;
  *cap = want;
  return 0;
}

/* ---- reading ------------------------------------------------------------------------------- */

int
jsonl_reader_append (struct jsonl_reader *r, const void *data, size_t len)
{
  int err;

  if (r->failed)
    return -EPROTO;
  if (len == 0)
    return 0;
  /* A line, its newline, and one read more: whoever takes each object as it comes never gets
   * here with more. */
  if (len > r->max_line + 1 + READ_CHUNK - MIN (r->len, r->max_line + 1 + READ_CHUNK)) {
    r->failed = true;
    return -EMSGSIZE;
  }
  err = grow (&r->buf, &r->cap, r->len, len);
  if (err < 0)
    return err;
  memcpy (r->buf + r->len, data, len);
  r->len += len;
  return 0;
}

ssize_t
jsonl_reader_fill (struct jsonl_reader *r, int fd)
{
  char chunk[READ_CHUNK];
  ssize_t n;
  int err;

  if (r->failed)
    return -EPROTO;
  do
    n = read (fd, chunk, sizeof chunk);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return -errno;
  err = jsonl_reader_append (r, chunk, (size_t) n);
  return err < 0 ? err : n;
}

/* jansson's own limit of depth is 2048, a constant of its build; ours is checked on the text,
 * before anything is built from it. */
static bool
is_too_deep (const char *p, size_t len)
{
  unsigned depth = 0;
  bool in_string = false;

  for (; len > 0; p++, len--) {
    if (in_string) {
      if (*p == '\\' && len > 1) {
        p++;
        len--;
      }
      else if (*p == '"')
        in_string = false;
    }
    else if (*p == '"')
      in_string = true;
    else if (*p == '{' || *p == '[') {
      if (++depth > JSONL_MAX_DEPTH)
        return true;
    }
    else if ((*p == '}' || *p == ']') && depth > 0)
      depth--;
  }
  return false;
}

static bool
is_blank (const char *p, size_t len)
{
  while (len > 0 && (*p == ' ' || *p == '\t' || *p == '\r')) {
    p++;
    len--;
  }
  return len == 0;
}

static void
say (json_error_t *error, const char *why)
{
  if (!error)
    return;
  memset (error, 0, sizeof *error);
  strncpy (error->text, why, sizeof error->text - 1);
}

static int
reader_fail (struct jsonl_reader *r, int err, json_error_t *error, const char *why)
{
  r->failed = true;
  if (why)
    say (error, why);
  return err;
}

json_t *
jsonl_parse (const char *text, size_t len, json_error_t *error)
{
  json_t *obj;

  if (is_too_deep (text, len)) {
    say (error, "nested too deep");
    return NULL;
  }
  obj = json_loadb (text, len, JSON_REJECT_DUPLICATES, error);
  if (obj && json_typeof (obj) != JSON_OBJECT) {
    json_decref (obj);
    say (error, "not an object");
    return NULL;
  }
  return obj;
}

int
jsonl_reader_next (struct jsonl_reader *r, json_t **obj, json_error_t *error)
{
  char *newline;
  size_t line;
  int err = 0;

  *obj = NULL;
  if (r->failed)
    return reader_fail (r, -EPROTO, error, "the stream failed earlier");

  for (;;) {
    newline = r->len > r->scanned ? memchr (r->buf + r->scanned, '\n', r->len - r->scanned) : NULL;
    if (!newline) {
      r->scanned = r->len;
      if (r->len > r->max_line)
        return reader_fail (r, -EMSGSIZE, error, "a line that is too long");
      return 0;
    }
    line = (size_t) (newline - r->buf);
    if (line > r->max_line)
      return reader_fail (r, -EMSGSIZE, error, "a line that is too long");

    if (!is_blank (r->buf, line)) {
      *obj = jsonl_parse (r->buf, line, error);
      if (!*obj)
        return reader_fail (r, -EPROTO, error, NULL);
      err = 1;
    }

    r->len -= line + 1;
    r->scanned = 0;
    memmove (r->buf, newline + 1, r->len);
    if (err)
      return err;
  }
}

/* ---- writing ------------------------------------------------------------------------------- */

json_t *
jsonl_string (const char *text)
{
  CLEANUP_FREE char *copy = NULL;
  json_t *string = json_string (text);

  if (string || !(copy = strdup (text)))
    return string;
  for (char *p = copy; *p;) {
    size_t n = 1, most = strnlen (p, 4);

    while (n <= most && !ident_is_utf8 (p, n))
      n++;
    if (n > most) {
      *p = '?';
      n = 1;
    }
    p += n;
  }
  return json_string (copy);
}

int
jsonl_writer_put (struct jsonl_writer *w, json_t *obj)
{
  CLEANUP_FREE char *text = NULL;
  size_t n;
  int err;

  if (!obj)
    return -ENOMEM;
  assert (json_is_object (obj));
  text = json_dumps (obj, JSON_COMPACT);
  if (!text)
    return -ENOMEM;
  n = strlen (text);
  if (n > JSONL_MAX_LINE)
    return -EMSGSIZE;
  if (n + 1 > w->max_out - w->len)
    return -ENOBUFS;
  if (w->start > 0) {
    memmove (w->buf, w->buf + w->start, w->len);
    w->start = 0;
  }
  err = grow (&w->buf, &w->cap, w->len, n + 1);
  if (err < 0)
    return err;
  memcpy (w->buf + w->len, text, n);
  w->buf[w->len + n] = '\n';
  w->len += n + 1;
  return 0;
}

int
jsonl_writer_flush (struct jsonl_writer *w, int fd)
{
  ssize_t n;

  while (w->len > 0) {
    n = send (fd, w->buf + w->start, w->len, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
      return 1;
    if (n < 0)
      return -errno;
    w->start += (size_t) n;
    w->len -= (size_t) n;
  }
  w->start = 0;
  /* One long answer must not keep its memory for the connection's life. */
  if (w->cap > 64 * 1024) {
    free (w->buf);
    w->buf = NULL;
    w->cap = 0;
  }
  return 0;
}

/* ---- sockets ------------------------------------------------------------------------------- */

static int
address (const char *path, struct sockaddr_un *addr)
{
  size_t n = strlen (path);

  memset (addr, 0, sizeof *addr);
  addr->sun_family = AF_UNIX;
  if (n == 0)
    return -EINVAL;
  if (n > CRG_SOCK_PATH_MAX || n >= sizeof addr->sun_path)
    return -ENAMETOOLONG;
  memcpy (addr->sun_path, path, n);
  return 0;
}

int
jsonl_connect (const char *path, int timeout_ms)
{
  struct timeval patience = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 }, none = { 0 };
  CLEANUP_CLOSE int fd = -1;
  struct sockaddr_un addr;
  int r = address (path, &addr), ret;

  if (r < 0)
    return r;
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -errno;
  /* Who takes no connections any more has a queue, and it may be full. */
  if (timeout_ms >= 0 && setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0)
    return -errno;
  do
    r = connect (fd, (struct sockaddr *) &addr, sizeof addr);
  while (r < 0 && errno == EINTR);
  if (r < 0)
    return errno == EAGAIN ? -ETIMEDOUT : -errno;
  if (timeout_ms >= 0 && setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none) < 0)
    return -errno;
  ret = fd;
  fd = -1;
  return ret;
}

/* 0: nothing is in the way (any more). */
static int
remove_stale (const char *path)
{
  struct sockaddr_un addr;
  CLEANUP_CLOSE int fd = -1;
  struct stat st;
  int r = address (path, &addr);

  if (r < 0)
    return r;
  if (lstat (path, &st) < 0)
    return errno == ENOENT ? 0 : -errno;
  if (!S_ISSOCK (st.st_mode))
    return -ENOTSOCK;
  /* Non-blocking: a live listener with a full queue answers EAGAIN, and is live. */
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -errno;
  if (connect (fd, (struct sockaddr *) &addr, sizeof addr) == 0 || errno != ECONNREFUSED)
    return -EADDRINUSE;
  return unlink (path) < 0 && errno != ENOENT ? -errno : 0;
}

int
jsonl_listen (const char *path, mode_t mode)
{
  CLEANUP_CLOSE int fd = -1;
  struct sockaddr_un addr;
  int r = address (path, &addr), ret;

  if (r < 0)
    return r;
  r = remove_stale (path);
  if (r < 0)
    return r;
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -errno;
  /* The file that bind makes gets the descriptor's mode less the umask, which belongs to the
   * whole process: close it for the instant, and open it afterwards. */
  if (fchmod (fd, mode & 0600) < 0)
    return -errno;
  if (bind (fd, (struct sockaddr *) &addr, sizeof addr) < 0)
    return -errno;
  if (chmod (path, mode) < 0 || listen (fd, JSONL_BACKLOG) < 0) {
    r = -errno;
    unlink (path);
    return r;
  }
  ret = fd;
  fd = -1;
  return ret;
}

int
jsonl_accept (int listen_fd)
{
  int fd;

  do
    fd = accept4 (listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  if (fd < 0)
    return errno == EWOULDBLOCK ? -EAGAIN : -errno;
  return fd;
}

int
jsonl_peer (int fd, pid_t *pid, uid_t *uid, gid_t *gid)
{
  struct ucred cred;
  socklen_t len = sizeof cred;

  if (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
    return -errno;
  if (len != sizeof cred)
    return -EINVAL;
  if (pid)
    *pid = cred.pid;
  if (uid)
    *uid = cred.uid;
  if (gid)
    *gid = cred.gid;
  return 0;
}

/* ---- simple clients ------------------------------------------------------------------------ */

/* 0 when 'fd' is ready (or broken: the next call on it says how). */
static int
wait_ready (int fd, short events, uint64_t deadline_ms)
{
  struct pollfd p = { .fd = fd, .events = events };
  uint64_t now;
  int r;

  for (;;) {
    now = clock_boottime_ms ();
    if (deadline_ms != UINT64_MAX && now >= deadline_ms)
      return -ETIMEDOUT;
    r = poll (&p, 1, deadline_ms == UINT64_MAX ? -1 : (int) MIN (deadline_ms - now, 60000u));
    if (r > 0)
      return 0;
    if (r < 0 && errno != EINTR)
      return -errno;
  }
}

static uint64_t
deadline (int timeout_ms)
{
  return timeout_ms < 0 ? UINT64_MAX : clock_boottime_ms () + (uint64_t) timeout_ms;
}

int
jsonl_send (int fd, json_t *obj, int timeout_ms)
{
  uint64_t until = deadline (timeout_ms);
  struct jsonl_writer w;
  ssize_t n;
  int r;

  jsonl_writer_init (&w, 0);
  r = jsonl_writer_put (&w, obj);
  while (r == 0 && w.len > 0) {
    n = send (fd, w.buf + w.start, w.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      w.start += (size_t) n;
      w.len -= (size_t) n;
    }
    else if (errno == EAGAIN || errno == EWOULDBLOCK)
      r = wait_ready (fd, POLLOUT, until);
    else if (errno != EINTR)
      r = -errno;
  }
  jsonl_writer_free (&w);
  return r;
}

/* In all its strings (visible.h).  Not deeper than JSONL_MAX_DEPTH. */
static int
make_visible (json_t *v)
{
  const char *key, *text = json_string_value (v);
  json_t *child;
  size_t i, n = json_string_length (v);

  if (text) {
    CLEANUP_FREE char *shown = malloc (VISIBLE_SIZE (n));

    if (!shown)
      return -ENOMEM;
    i = visible_text (text, n, shown, VISIBLE_SIZE (n));
    return i == n || json_string_setn (v, shown, i) == 0 ? 0 : -ENOMEM;
  }
  json_array_foreach (v, i, child)
    if (make_visible (child) < 0)
      return -ENOMEM;
  json_object_foreach (v, key, child)
    if (make_visible (child) < 0)
      return -ENOMEM;
  return 0;
}

int
jsonl_receive (int fd, struct jsonl_reader *r, int timeout_ms, json_t **obj)
{
  uint64_t until = deadline (timeout_ms);
  ssize_t n;
  int ret;

  for (;;) {
    ret = jsonl_reader_next (r, obj, NULL);
    if (ret < 0)
      return ret;
    if (ret > 0) {
      ret = make_visible (*obj);
      if (ret < 0)
        json_decref (*obj);
      return ret;
    }
    ret = wait_ready (fd, POLLIN, until);
    if (ret < 0)
      return ret;
    n = jsonl_reader_fill (r, fd);
    if (n == 0)
      return -ECONNRESET;
    if (n < 0 && n != -EAGAIN)
      return (int) n;
  }
}
