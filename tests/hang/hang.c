/* A file system that does not answer, and processes that make their readers
 * hang with it. Takes a command per line on standard input and says what came
 * of it; with the end of its input, or its own, everything ends: the kernel
 * gives up the connection, and the processes die with their parent.
 *
 * hang serve MOUNTPOINT   as root, in a mount namespace of its own
 *   lock                  starts a process that holds the lock of its memory
 *   program               starts one whose executable lies in the file system
 *   deaf                  no request is taken any more: who waits for one that
 *                         was taken could not even be killed
 *   abort                 gives up the connection; the processes go on
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOBODY 65534
#define PAGE 4096
#define SECONDS_MAX 600
#define REQUEST_BYTES (FUSE_MIN_READ_BUFFER + 65536)

/* Nodes: "page", whose content never comes, and "program", this file. */
enum { PAGE_NODE = 2, PROGRAM_NODE = 3 };

static const char *mountpoint;
static int connection = -1;
static int self = -1;
static struct stat self_stat;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void answer(const struct fuse_in_header *in, int error, const void *body,
                   size_t length) {
  static char out[sizeof(struct fuse_out_header) + REQUEST_BYTES];
  struct fuse_out_header head = {.error = -error, .unique = in->unique};
  if (error)
    length = 0;
  head.len = sizeof head + length;
  memcpy(out, &head, sizeof head);
  if (length)
    memcpy(out + sizeof head, body, length);
  /* Whoever asked may be gone: that is no fault. */
  if (write(connection, out, head.len) < 0 && errno != ENOENT)
    perror("answer");
}

static struct fuse_attr attributes(uint64_t node) {
  struct fuse_attr attr = {.ino = node, .nlink = 1, .blksize = PAGE};
  attr.mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0755;
  attr.size = node == PROGRAM_NODE ? (uint64_t)self_stat.st_size : PAGE;
  return attr;
}

static void look_up(const struct fuse_in_header *in, const char *name) {
  struct fuse_entry_out out = {.generation = 1};
  if (strcmp(name, "page") == 0)
    out.nodeid = PAGE_NODE;
  else if (strcmp(name, "program") == 0)
    out.nodeid = PROGRAM_NODE;
  out.attr = attributes(out.nodeid);
  answer(in, out.nodeid ? 0 : ENOENT, &out, sizeof out);
}

static void read_program(const struct fuse_in_header *in,
                         const struct fuse_read_in *wanted) {
  static char content[REQUEST_BYTES];
  ssize_t length = pread(self, content, wanted->size, (off_t)wanted->offset);
  answer(in, length < 0 ? EIO : 0, content, length < 0 ? 0 : (size_t)length);
}

/* Takes one request. What is read of "page" is never answered. */
static void serve(void) {
  static char request[REQUEST_BYTES];
  ssize_t length = read(connection, request, sizeof request);
  if (length < (ssize_t)sizeof(struct fuse_in_header))
    return;
  const struct fuse_in_header *in = (const void *)request;
  const void *body = request + sizeof *in;
  struct fuse_init_out init = {.major = FUSE_KERNEL_VERSION,
                               .minor = FUSE_KERNEL_MINOR_VERSION,
                               .max_write = PAGE};
  struct fuse_attr_out attr = {.attr = attributes(in->nodeid)};
  struct fuse_open_out opened = {.fh = in->nodeid};
  switch (in->opcode) {
  case FUSE_INIT:
    return answer(in, 0, &init, sizeof init);
  case FUSE_LOOKUP:
    return look_up(in, body);
  case FUSE_GETATTR:
    return answer(in, 0, &attr, sizeof attr);
  case FUSE_OPEN:
    return answer(in, 0, &opened, sizeof opened);
  case FUSE_READ:
    if (in->nodeid == PROGRAM_NODE)
      read_program(in, body);
    return;
  case FUSE_RELEASE:
    return answer(in, 0, NULL, 0);
  case FUSE_FORGET:
  case FUSE_BATCH_FORGET:
  case FUSE_INTERRUPT:
    return; /* These have no answer. */
  default:
    return answer(in, ENOSYS, NULL, 0);
  }
}

/* Starts a process of nobody that ends with this one, and says its PID. */
static void start(const char *program, const char *what) {
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid < 0)
    die("fork");
  if (pid > 0) {
    printf("%d\n", (int)pid);
    return;
  }
  if (setgid(NOBODY) || setuid(NOBODY))
    die("setuid");
  /* After the change of account, which clears it. */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent)
    exit(1);
  close(0);
  execl(program, "hang", what, mountpoint, "the arguments that nobody reads",
        (char *)NULL);
  die("exec");
}

static char *page;

/* Reads its own memory by the way that keeps the lock while a page comes. */
static void *read_page(void *unused) {
  int memory = open("/proc/self/mem", O_RDONLY);
  char byte;
  if (memory < 0 || pread(memory, &byte, 1, (off_t)(uintptr_t)page) < 0)
    perror("read_page");
  return unused;
}

/* Waits for the lock: behind who wants to write, nobody gets it to read. */
static void *map_more(void *unused) {
  for (;;) {
    void *more = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(more, PAGE);
    usleep(100000);
  }
  return unused;
}

static void hold_lock(void) {
  char path[PAGE];
  pthread_t reader, mapper;
  snprintf(path, sizeof path, "%s/page", mountpoint);
  int file = open(path, O_RDONLY);
  page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, file, 0);
  if (file < 0 || page == MAP_FAILED)
    die("page");
  if (pthread_create(&reader, NULL, read_page, NULL) ||
      pthread_create(&mapper, NULL, map_more, NULL))
    die("thread");
  for (;;)
    pause();
}

static void command(const char *line) {
  char program[PAGE];
  if (strcmp(line, "lock") == 0)
    return start("/proc/self/exe", "lock-held");
  if (strcmp(line, "program") == 0) {
    snprintf(program, sizeof program, "%s/program", mountpoint);
    return start(program, "sleep");
  }
  if (strcmp(line, "abort") == 0)
    close(connection);
  if (strcmp(line, "abort") == 0 || strcmp(line, "deaf") == 0)
    connection = -1;
  printf("done\n");
}

static void mount_it(void) {
  char options[128];
  connection = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  snprintf(options, sizeof options,
           "fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", connection);
  if (connection < 0 ||
      mount("hang", mountpoint, "fuse", MS_NOSUID | MS_NODEV, options))
    die("mount");
  self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (self < 0 || fstat(self, &self_stat))
    die("self");
  printf("mounted\n");
}

int main(int count, char **arguments) {
  char line[64];
  size_t length = 0;
  if (count < 3)
    return 64;
  mountpoint = arguments[2];
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (strcmp(arguments[1], "lock-held") == 0)
    hold_lock();
  while (strcmp(arguments[1], "sleep") == 0)
    pause(); /* As the program of the file system. */
  signal(SIGCHLD, SIG_IGN);
  alarm(SECONDS_MAX); /* Whatever becomes of the test. */
  mount_it();
  for (;;) {
    struct pollfd sources[] = {{.fd = 0, .events = POLLIN},
                               {.fd = connection, .events = POLLIN}};
    if (poll(sources, 2, -1) < 0)
      die("poll");
    if (sources[1].revents)
      serve();
    if (!sources[0].revents)
      continue;
    if (length == sizeof line - 1 || read(0, line + length, 1) != 1)
      return 0;
    if (line[length] == '\n') {
      line[length] = 0;
      length = 0;
      command(line);
    } else {
      length++;
    }
  }
}
