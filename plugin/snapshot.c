/* SPDX-License-Identifier: BSD-3-Clause */
/* The thread that keeps what a copy holds: see snapshot.h.  It must never let a job count as done whose
 * file is not stable, nor run a program that others than the administrator may write to.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/program.h"
#include "common/util-posix.h"
#include "plugin/log.h"
#include "plugin/snapshot.h"

#define SUFFIX     ".before-resync"
#define SUFFIX_NEW ".before-resync.new"
#define PATH_SIZE  (CRG_PATH_MAX + sizeof SUFFIX_NEW)

struct snapshot {
  const struct params *p;
  int efd;    /* the engine's */
  int cancel; /* an eventfd: readable when a hook is to be killed */
  char path[PATH_SIZE], new_path[PATH_SIZE];

  /* The engine's: */
  bool want_make, want_drop, cancelled;
  uint64_t retry_ms; /* a failed attempt is not made again before */
  int last_error;
  uint8_t state;     /* enum snapshot_state */
  char text[CRG_REASON_MAX + 1];

  /* The thread's, from its start until it is done: */
  pthread_t thread;
  bool threaded;
  uint8_t what; /* enum snapshot_what; NONE: nothing is under way */
  int fd;
  struct superblock sb;
  int error;
  char why[CRG_REASON_MAX + 1];
  _Atomic bool done;
};

/* ---- the hook ----------------------------------------------------------------------------- */

static int
wait_for_hook (struct snapshot *s, pid_t pid)
{
  CLEANUP_CLOSE int pidfd = (int) syscall (SYS_pidfd_open, pid, 0);
  struct pollfd fds[2] = { { .fd = pidfd, .events = POLLIN }, { .fd = s->cancel, .events = POLLIN } };
  const uint64_t end = clock_boottime_ms () + SNAPSHOT_TIMEOUT_MS;
  siginfo_t info = { 0 };
  int r = -ETIMEDOUT;

  for (uint64_t now; pidfd >= 0 && (now = clock_boottime_ms ()) < end;) {
    int n = poll (fds, 2, (int) (end - now));

    if (n < 0 && errno != EINTR)
      break;
    if (n > 0 && (fds[0].revents || fds[1].revents)) {
      r = fds[0].revents ? 0 : -ECANCELED;
      break;
    }
  }
  if (r < 0)
    kill (-pid, SIGKILL);
  while (waitid (P_PID, (id_t) pid, &info, WEXITED) < 0 && errno == EINTR)
    ;
  if (r == -ETIMEDOUT)
    snprintf (s->why, sizeof s->why, "snapshot-hook %.150s: it took longer than %d s, and was killed", s->p->snapshot_hook,
              SNAPSHOT_TIMEOUT_MS / 1000);
  else if (r < 0)
    snprintf (s->why, sizeof s->why, "snapshot-hook %.150s: it was killed, as the node gives its role up", s->p->snapshot_hook);
  else if (info.si_code != CLD_EXITED || info.si_status != 0) {
    snprintf (s->why, sizeof s->why, "snapshot-hook %.150s: it ended with %s %d", s->p->snapshot_hook,
              info.si_code == CLD_EXITED ? "exit code" : "signal", info.si_status);
    r = -EIO;
  }
  return r;
}

/* "make": keep what the store holds; an older snapshot is replaced.  "drop": remove what there is. */
static int
run_hook (struct snapshot *s, const char *what)
{
  static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", locale[] = "LC_ALL=C";
  const struct params *p = s->p;
  char crg[CRG_NAME_MAX + 16], iasp[CRG_NAME_MAX + 16], node[CRG_NAME_MAX + 16], site[CRG_NAME_MAX + 16],
    store[CRG_PATH_MAX + 16], arg[8];
  char *env[] = { path, locale, crg, iasp, node, site, store, NULL };
  char *argv[] = { (char *) (uintptr_t) p->snapshot_hook, arg, NULL };
  const char *refused = program_refusal (p->snapshot_hook, false);
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attr;
  sigset_t none, all;
  pid_t pid;
  int r;

  if (refused) {
    snprintf (s->why, sizeof s->why, "snapshot-hook %.150s: it is not run: %s", p->snapshot_hook, refused);
    return -EPERM;
  }
  snprintf (crg, sizeof crg, "CRG_NAME=%s", p->crg);
  snprintf (iasp, sizeof iasp, "CRG_IASP=%s", p->name);
  snprintf (node, sizeof node, "CRG_NODE=%s", p->node);
  snprintf (site, sizeof site, "CRG_SITE=%s", p->site);
  snprintf (store, sizeof store, "CRG_STORE=%s", p->store);
  snprintf (arg, sizeof arg, "%s", what);
  sigemptyset (&none);
  sigfillset (&all);
  if (posix_spawn_file_actions_init (&files) != 0)
    return -ENOMEM;
  if (posix_spawnattr_init (&attr) != 0) {
    posix_spawn_file_actions_destroy (&files);
    return -ENOMEM;
  }
  r = posix_spawn_file_actions_addopen (&files, 0, "/dev/null", O_RDONLY, 0);
  if (r == 0) /* the plugin's standard error is its log */
    r = posix_spawn_file_actions_adddup2 (&files, 2, 1);
  if (r == 0)
    r = posix_spawn_file_actions_addclosefrom_np (&files, 3);
  if (r == 0)
    r = posix_spawn_file_actions_addchdir_np (&files, "/");
  if (r == 0)
    r = posix_spawnattr_setflags (&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  if (r == 0)
    r = posix_spawnattr_setsigmask (&attr, &none);
  if (r == 0)
    r = posix_spawnattr_setsigdefault (&attr, &all);
  if (r == 0)
    r = posix_spawn (&pid, p->snapshot_hook, &files, &attr, argv, env);
  posix_spawnattr_destroy (&attr);
  posix_spawn_file_actions_destroy (&files);
  if (r != 0) {
    snprintf (s->why, sizeof s->why, "snapshot-hook %.150s: %.80s", p->snapshot_hook, strerror (r));
    return -r;
  }
  return wait_for_hook (s, pid);
}

/* ---- the file ----------------------------------------------------------------------------- */

/* Both superblocks say: a fork, of which nobody knows what it was written, and nobody has it open. */
static int
mark_fork (int fd, struct superblock *sb, void *block)
{
  uint64_t offset[2];
  int r = meta_slot_offsets (sb->store_bytes, offset);

  /* Its metadata is in another file, and is no part of what is kept: that is data alone. */
  if (sb->flags & SUPER_F_EXTERNAL)
    return 0;
  sb->flags = (uint16_t) ((sb->flags & ~(SUPER_F_OPEN | SUPER_F_TRACKED)) | SUPER_F_FORK);
  sb->role = SUPER_ROLE_DETACHED;
  for (unsigned i = 0; i < 2 && r == 0; i++) {
    sb->sequence++;
    super_encode (sb, i, block);
    if (pwrite (fd, block, META_BLOCK_SIZE, (off_t) offset[i]) != META_BLOCK_SIZE)
      r = errno ? -errno : -EIO;
  }
  return r;
}

static int
sync_directory (const char *path)
{
  char copy[PATH_SIZE];
  CLEANUP_CLOSE int fd = -1;

  snprintf (copy, sizeof copy, "%s", path);
  fd = open (dirname (copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return fd < 0 || fsync (fd) < 0 ? -errno : 0;
}

static bool
is_unsupported (int error)
{
  return error == EOPNOTSUPP || error == ENOTTY || error == EXDEV || error == EINVAL || error == ENOSYS;
}

/* 1: it can't be had here. */
static int
reflink (struct snapshot *s)
{
  CLEANUP_CLOSE int fd = -1;
  CLEANUP_FREE void *block = NULL;
  const char *what = "can't be made";
  struct stat st;
  int r;

  if (fstat (s->fd, &st) < 0 || !S_ISREG (st.st_mode))
    return 1;
  if (posix_memalign (&block, META_BLOCK_SIZE, META_BLOCK_SIZE) != 0)
    return -ENOMEM;
  if (unlink (s->new_path) < 0 && errno != ENOENT)
    goto failed;
  fd = open (s->new_path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0)
    goto failed;
  if (ioctl (fd, FICLONE, s->fd) < 0) {
    r = errno;
    unlink (s->new_path);
    if (is_unsupported (r))
      return 1;
    errno = r;
    what = "can't be reflinked";
    goto failed;
  }
  errno = 0;
  r = mark_fork (fd, &s->sb, block);
  if (r == 0 && fsync (fd) < 0)
    r = -errno;
  if (r == 0 && rename (s->new_path, s->path) < 0)
    r = -errno;
  if (r == 0)
    r = sync_directory (s->path);
  if (r == 0)
    return 0;
  unlink (s->new_path);
  errno = -r;
  what = "can't be made stable";

failed:
  r = -errno;
  snprintf (s->why, sizeof s->why, "%.160s: it %s: %.60s", s->path, what, strerror (-r));
  return r;
}

static int
make (struct snapshot *s)
{
  int r = reflink (s);

  if (r <= 0) {
    if (r == 0)
      snprintf (s->why, sizeof s->why, "%.250s", s->path);
    return r;
  }
  if (s->p->snapshot_hook[0] == '\0') {
    snprintf (s->why, sizeof s->why, "store %.120s: it can't be reflinked where it is, and crgd.conf has no snapshot-hook",
              s->p->store);
    return -EOPNOTSUPP;
  }
  r = run_hook (s, "make");
  if (r == 0)
    snprintf (s->why, sizeof s->why, "by snapshot-hook %.200s", s->p->snapshot_hook);
  return r;
}

static int
drop (struct snapshot *s)
{
  if (unlink (s->path) == 0)
    return 0;
  if (errno != ENOENT) {
    int r = -errno;

    snprintf (s->why, sizeof s->why, "%.160s: it can't be removed: %.60s", s->path, strerror (-r));
    return r;
  }
  return s->p->snapshot_hook[0] ? run_hook (s, "drop") : 0;
}

static void *
snapshot_main (void *arg)
{
  struct snapshot *s = arg;

  prctl (PR_SET_NAME, "iasp-snapshot");
  s->error = s->what == SNAPSHOT_MAKE ? make (s) : drop (s);
  atomic_store (&s->done, true);
  /* A wake-up that gets lost is made up for by the engine's next tick. */
  eventfd_write (s->efd, 1);
  return NULL;
}

/* ---- the engine's side -------------------------------------------------------------------- */

struct snapshot *
snapshot_new (const struct params *p)
{
  struct snapshot *s = calloc (1, sizeof *s);

  if (!s)
    return NULL;
  s->p = p;
  s->efd = s->fd = -1;
  s->cancel = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (s->cancel < 0) {
    free (s);
    return NULL;
  }
  snprintf (s->path, sizeof s->path, "%s" SUFFIX, p->store);
  snprintf (s->new_path, sizeof s->new_path, "%s" SUFFIX_NEW, p->store);
  return s;
}

void
snapshot_wake_by (struct snapshot *s, int efd)
{
  s->efd = efd;
}

static void
set (struct snapshot *s, enum snapshot_state state, const char *text)
{
  s->state = (uint8_t) state;
  snprintf (s->text, sizeof s->text, "%.*s", CRG_REASON_MAX, text);
}

/* The next job, if none is under way. */
static void
pump (struct snapshot *s)
{
  uint64_t n;
  int r;

  if (s->what != SNAPSHOT_NONE || (!s->want_drop && !s->want_make))
    return;
  s->what = s->want_drop ? SNAPSHOT_DROP : SNAPSHOT_MAKE;
  s->want_drop = false;
  s->want_make = s->want_make && s->what == SNAPSHOT_DROP;
  s->why[0] = '\0';
  r = s->cancelled ? -ECANCELED : 0;
  /* What failed is not tried with each link anew. */
  if (r == 0 && s->what == SNAPSHOT_MAKE && clock_boottime_ms () < s->retry_ms) {
    r = s->last_error;
    snprintf (s->why, sizeof s->why, "%s", s->text);
  }
  if (r == 0) {
    while (read (s->cancel, &n, sizeof n) > 0)
      ;
    atomic_store (&s->done, false);
    /* The engine's thread has all signals blocked, and so has this one: its job is its from here. */
    r = -pthread_create (&s->thread, NULL, snapshot_main, s);
  }
  s->threaded = r == 0;
  if (s->threaded) {
    if (s->what == SNAPSHOT_MAKE)
      set (s, SNAP_IS_MAKING, "");
    return;
  }
  s->error = r;
  atomic_store (&s->done, true);
  eventfd_write (s->efd, 1);
}

void
snapshot_opened (struct snapshot *s, bool coherent)
{
  set (s, SNAP_IS_NONE, "");
  s->retry_ms = 0;
  s->cancelled = false;
  if (unlink (s->new_path) == 0)
    log_line ("%s: removed: it was not finished", s->new_path);
  if (!coherent && access (s->path, F_OK) == 0)
    set (s, SNAP_IS_KEPT, s->path);
  else if (coherent && unlink (s->path) == 0)
    log_line ("%s: removed: the store itself is coherent", s->path);
}

void
snapshot_make (struct snapshot *s, int fd, const struct superblock *sb)
{
  s->fd = fd;
  s->sb = *sb;
  s->want_make = true;
  pump (s);
}

void
snapshot_drop (struct snapshot *s)
{
  s->want_drop = true;
  pump (s);
}

void
snapshot_cancel (struct snapshot *s)
{
  s->cancelled = true;
  eventfd_write (s->cancel, 1);
}

bool
snapshot_is_ready (const struct snapshot *s)
{
  return s->what != SNAPSHOT_NONE && atomic_load (&s->done);
}

enum snapshot_what
snapshot_take (struct snapshot *s, int *error)
{
  const enum snapshot_what what = (enum snapshot_what) s->what;

  if (!snapshot_is_ready (s))
    return SNAPSHOT_NONE;
  if (s->threaded)
    pthread_join (s->thread, NULL);
  *error = s->error;
  s->what = SNAPSHOT_NONE;
  if (what == SNAPSHOT_DROP) {
    set (s, SNAP_IS_NONE, "");
    if (s->error < 0)
      log_line ("what was kept before the resynchronisation is still there: %s", s->why);
  }
  else if (s->error == 0) {
    set (s, SNAP_IS_KEPT, s->why);
    s->retry_ms = 0;
    log_line ("what the copy holds is kept: %s", s->text);
  }
  else {
    if (s->threaded) {
      s->last_error = s->error;
      s->retry_ms = clock_boottime_ms () + SNAPSHOT_RETRY_MS;
      log_line ("what the copy holds can't be kept: %s", s->why);
    }
    set (s, SNAP_IS_FAILED, s->why);
  }
  pump (s);
  return what;
}

bool
snapshot_is_idle (const struct snapshot *s)
{
  return s->what == SNAPSHOT_NONE && !s->want_make && !s->want_drop;
}

enum snapshot_state
snapshot_state (const struct snapshot *s)
{
  return (enum snapshot_state) s->state;
}

const char *
snapshot_text (const struct snapshot *s)
{
  return s->text;
}

void
snapshot_free (struct snapshot *s)
{
  if (!s)
    return;
  snapshot_cancel (s);
  if (s->what != SNAPSHOT_NONE && s->threaded)
    pthread_join (s->thread, NULL);
  close (s->cancel);
  free (s);
}
