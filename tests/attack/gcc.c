/* A compiler that a hostile member could send: it compiles like gcc, which it starts in the end, but on a worker it first
   tries what -DATTACK=NAME names. Each line on standard output that begins with LEAK is a wall that did not hold. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void leak(const char *what, const char *detail) { printf("LEAK %s %s\n", what, detail); fflush(stdout); }

/* A read that works and shows anything of the worker's owner. */
static void try_read(const char *path) {
    char text[4096] = "";
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof text - 1);
    if (n > 0 && (strstr(text, "LAB-SECRET") || strstr(text, "XDG_") || strstr(text, "worker:"))) leak("read", path);
    close(fd);
}

static void walk_for_secrets(const char *path, int depth) {
    DIR *dir = depth > 0 ? opendir(path) : NULL;
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char child[4096];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(child, sizeof child, "%s/%s", strcmp(path, "/") ? path : "", entry->d_name);
        if (strstr(entry->d_name, "lab-secret") || strstr(entry->d_name, "identity.pk8")) leak("name", child);
        if (entry->d_type == DT_DIR) walk_for_secrets(child, depth - 1);
    }
    if (dir) closedir(dir);
}

static void attack_read(void) {
    /* No name that exists at the submitter: touching one of those is a fault, and the result would not be shown. */
    static const char *const paths[] = {"/proc/1/environ", "/proc/self/environ", "/proc/2/environ", "/old/lab-secret",
        "/proc/1/root/potluck/potluck", "/proc/1/cwd/lab-secret", "/.potluck/../potluck/potluck",
        "/lab-work/peek0", "/lab-work/peek1", "/lab-work/peek2"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) try_read(paths[i]);
    for (int fd = 3; fd < 256; fd++) {
        char link[64], target[4096] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (readlink(link, target, sizeof target - 1) > 0) leak("descriptor", target);
    }
    for (int pid = 1; pid < 64; pid++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/environ", pid);
        try_read(path);
        snprintf(path, sizeof path, "/proc/%d/fd", pid);
        DIR *dir = pid == getpid() ? NULL : opendir(path);
        if (dir) { leak("fd folder", path); closedir(dir); }
    }
    walk_for_secrets("/", 6);
}

/* Names that the submitter has too: a fault that the submitter must not answer. */
static void attack_ask(void) {
    static const char *const paths[] = {"/etc/passwd", "/etc/shadow", "/root/.ssh/id_rsa", "/home/worker/lab-secret"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) try_read(paths[i]);
}

static void attack_net(void) {
    static const char *const hosts[] = {"10.77.0.1", "127.0.0.1", "10.77.0.10", "10.77.0.11"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7711)};
        inet_pton(AF_INET, hosts[i], &to.sin_addr);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (fd < 0) continue;
        if (!connect(fd, (struct sockaddr *)&to, sizeof to) || errno == EINPROGRESS) leak("connect", hosts[i]);
        close(fd);
    }
    static const int families[] = {AF_NETLINK, AF_PACKET, AF_VSOCK, AF_BLUETOOTH, AF_ALG};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        int fd = socket(families[i], SOCK_RAW, 0);
        char name[16];
        snprintf(name, sizeof name, "%d", families[i]);
        if (fd >= 0) { leak("socket family", name); close(fd); }
    }
    static const char *const sockets[] = {"/home/worker/run/potluck/node.sock", "/run/dbus/system_bus_socket", "/tmp/.X11-unix/X0"};
    for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        strncpy(to.sun_path, sockets[i], sizeof to.sun_path - 1);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (fd >= 0 && !connect(fd, (struct sockaddr *)&to, sizeof to)) leak("connect", sockets[i]);
        if (fd >= 0) close(fd);
    }
}

/* The call must fail with one of two errors. What it said is printed, so that the table shows what was tried. */
static int tried;
static void must(const char *name, long result, int got, int want, int other) {
    char text[128];
    tried++;
    snprintf(text, sizeof text, "%s: %s instead of %s", name, result >= 0 ? "success" : strerrorname_np(got), strerrorname_np(want));
    if (result >= 0 || (got != want && got != other)) leak("call", text);
}
#define MUST2(name, want, other, call) do { errno = 0; long r_ = (long)(call); must(name, r_, errno, want, other); } while (0)
#define MUST(name, want, call) MUST2(name, want, want, call)
/* A file of /proc that is not to be had: refused, or a sandbox on this kernel has no such file at all. */
#define MUST_NOT_OPEN(name, path, flags) do { errno = 0; long r_ = open(path, flags); must(name, r_, errno, EACCES, errno == EPERM || errno == EROFS ? errno : ENOENT); } while (0)

/* What the kernel counts for the user id, which is the owner's. */
static void attack_counts(void) {
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    timer_t timer;
    unsigned long context = 0;
    int ends[2], queued = 0;
    union sigval value = {0};
    sigset_t all;
    MUST("inotify", ENOSYS, inotify_init());
    MUST("inotify_init1", ENOSYS, inotify_init1(0));
    MUST("fanotify", EPERM, syscall(SYS_fanotify_init, 0, 0));
    MUST("asynchronous I/O", ENOSYS, syscall(SYS_io_setup, 1024, &context));
    MUST("timer", ENOSYS, timer_create(CLOCK_MONOTONIC, &none, &timer));
    MUST("keys", EPERM, syscall(SYS_add_key, "user", "lab", "x", 1, KEY_SPEC_PROCESS_KEYRING));
    MUST("FIFO", EPERM, mkfifo("/tmp/fifo", 0600));
    MUST("vmsplice", EPERM, syscall(SYS_vmsplice, 1, NULL, 0, 0));
    MUST("mlock", EPERM, mlock(&all, sizeof all));
    MUST("memfd", ENOSYS, memfd_create("lab", 0));
    MUST("huge pages", EPERM, syscall(SYS_mmap, NULL, 2 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0));
    MUST("signal with a value", ENOSYS, sigqueue(getpid(), SIGRTMAX, value));
    if (pipe(ends)) leak("pipe", "none for a compiler");
    MUST("a larger pipe", EPERM, fcntl(ends[0], F_SETPIPE_SZ, 1 << 20));
    MUST("a lease", EPERM, fcntl(ends[0], F_SETLEASE, F_RDLCK));
    MUST("dnotify", EPERM, fcntl(ends[0], F_NOTIFY, 1));
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    char line[128] = "";
    for (; queued < 200; queued++) if (kill(getpid(), SIGRTMAX)) break;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status) && strncmp(line, "SigQ:", 5)) {}
    if (atol(line + 5) > 100) leak("queued signals", line);
    printf("TRIED %d\n", tried);
    fflush(stdout);
    sigemptyset(&all);
    signal(SIGRTMAX, SIG_IGN);
    sigprocmask(SIG_SETMASK, &all, NULL);
}

static void attack_pipes(void) {
    int ends[2], made = 0;
    while (made < 100000) {
        if (!fork()) { for (int i = 0; i < 400 && !pipe(ends); i++) {} pause(); _exit(0); }
        usleep(10000);
        made += 400;
    }
    leak("pipes", "as many as the kernel has");
}

/* Files of /proc that can be read, and its links: whose machine is this? */
static void search_names(const char *path, int depth) {
    static const char *const words[] = {"/mirrors/", "/home/", ".cache", "lab-secret", "uid=54"};
    static char text[1 << 16];
    DIR *dir = depth > 0 ? opendir(path) : NULL;
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char child[4096];
        ssize_t n = -1;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || !strcmp(entry->d_name, "cmdline")) continue;
        /* Its own environment is the submitter's. */
        if (!strcmp(entry->d_name, "environ")) continue;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (entry->d_type == DT_DIR) search_names(child, depth - 1);
        if (entry->d_type == DT_LNK) n = readlink(child, text, sizeof text);
        if (entry->d_type == DT_REG) {
            int fd = open(child, O_RDONLY | O_NONBLOCK);
            if (fd >= 0) n = read(fd, text, sizeof text);
            if (fd >= 0) close(fd);
        }
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (n > 0 && memmem(text, n, words[i], strlen(words[i]))) leak(child, words[i]);
        tried += n > 0;
    }
    if (dir) closedir(dir);
}

static void attack_names(void) {
    search_names("/proc", 5);
    printf("TRIED %d\n", tried);
    fflush(stdout);
}

/* Two processes: what the child of a job may do to its parent, to the first process and to the sandbox. */
static void attack_escape(void) {
    char c = 'x', path[64];
    pid_t child = fork();
    if (child > 0) { int status; waitpid(child, &status, 0); return; }
    MUST("mount", EPERM, mount("none", "/tmp", "tmpfs", 0, ""));
    MUST("remount", EPERM, mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    MUST("umount", EPERM, umount2("/tmp", MNT_DETACH));
    MUST("pivot_root", EPERM, syscall(SYS_pivot_root, ".", "."));
    MUST("chroot", EPERM, chroot("/tmp"));
    MUST("ptrace 1", EPERM, ptrace(PTRACE_ATTACH, 1, 0, 0));
    MUST("ptrace parent", EPERM, ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    MUST("ptrace seize", EPERM, ptrace(PTRACE_SEIZE, getppid(), 0, 0));
    MUST("TIOCSTI", EPERM, ioctl(0, TIOCSTI, &c));
    MUST("TIOCLINUX", EPERM, ioctl(0, 0x541c, &c));
    MUST("setns", EPERM, setns(open("/proc/1/ns/mnt", O_RDONLY), 0));
    MUST("setns by pid", EPERM, syscall(SYS_setns, syscall(SYS_pidfd_open, getppid(), 0), CLONE_NEWNS));
    static const int spaces[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        MUST("unshare", EPERM, unshare(spaces[i]));
        MUST("clone", EPERM, syscall(SYS_clone, spaces[i] | SIGCHLD, 0, 0, 0, 0));
    }
    MUST("personality", EPERM, syscall(SYS_personality, 0x0400000));
    MUST("mknod", EPERM, mknod("/tmp/device", S_IFCHR | 0666, 0x101));
    MUST("mknod block", EPERM, mknod("/tmp/device", S_IFBLK | 0666, 0x801));
    MUST2("setuid 0", EPERM, EINVAL, setuid(0));
    MUST2("setgid 0", EPERM, EINVAL, setgid(0));
    MUST("kill 1", EPERM, kill(1, SIGKILL));
    MUST2("open /dev/fuse", ENOENT, EACCES, open("/dev/fuse", O_RDWR));
    MUST2("open /dev/kvm", ENOENT, EACCES, open("/dev/kvm", O_RDWR));
    MUST2("write the compiler", EROFS, EACCES, open("/usr/bin/gcc", O_WRONLY));
    MUST2("create in /usr", EROFS, EACCES, open("/usr/lab", O_WRONLY | O_CREAT, 0644));
    MUST2("create in /", EROFS, EACCES, open("/lab", O_WRONLY | O_CREAT, 0644));
    MUST_NOT_OPEN("fds of the first", "/proc/1/fd", O_RDONLY | O_DIRECTORY);
    MUST_NOT_OPEN("memory of the first", "/proc/1/mem", O_RDWR);
    MUST_NOT_OPEN("root of the first", "/proc/1/root/", O_RDONLY);
    /* Its own parent is the same user, but the job's: nothing of the node's may be open there. */
    for (int fd = 3; fd < 256; fd++) {
        char target[4096] = "";
        snprintf(path, sizeof path, "/proc/%d/fd/%d", getppid(), fd);
        if (readlink(path, target, sizeof target - 1) > 0) leak("descriptor of the parent", target);
    }
    MUST_NOT_OPEN("sysrq", "/proc/sysrq-trigger", O_WRONLY);
    MUST_NOT_OPEN("core_pattern", "/proc/sys/kernel/core_pattern", O_WRONLY);
    /* EBADF: they cannot even be opened. */
    MUST2("oom_score_adj", EBADF, EACCES, write(open("/proc/self/oom_score_adj", O_WRONLY), "-1000", 5));
    MUST2("uid_map", EBADF, EPERM, write(open("/proc/self/uid_map", O_WRONLY), "0 0 1", 5));
    struct sched_param high = {.sched_priority = 1};
    MUST("real time", EPERM, sched_setscheduler(0, SCHED_FIFO, &high));
    MUST("out of idle", EPERM, sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0}));
    MUST2("nice", EPERM, EACCES, setpriority(PRIO_PROCESS, 0, -5));
    printf("TRIED %d\n", tried);
    fflush(stdout);
    _exit(0);
}

/* Every number that the filter's table does not let through, with the error that it promises; calls.h is made from it. */
static const struct { const char *name; long number; int want; } CALLS[] = {
#include "calls.h"
};

static void attack_sweep(void) {
    int swept = 0;
    if (syscall(SYS_getppid) < 0) leak("control", "getppid is refused: the sweep shows nothing");
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++, swept++) {
        int status;
        pid_t child = fork();
        if (!child) {
            /* Arguments that mean little, so that a call that goes through does little. */
            errno = 0;
            long result = syscall(CALLS[i].number, 0, 0, 0, 0, 0, 0);
            must(CALLS[i].name, result, errno, CALLS[i].want, CALLS[i].want);
            _exit(0);
        }
        if (waitpid(child, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status)) leak("killed by", CALLS[i].name);
    }
#ifdef __x86_64__
    for (long number = 0; number < 1024; number++) MUST("an x32 call", ENOSYS, syscall(0x40000000 + number));
#endif
    printf("SWEPT %d\n", swept);
    fflush(stdout);
}

static const char *output;

/* Output names that must never be followed, taken or create anything outside. */
static void attack_outputs(void) {
    char path[4096], dir[4096];
    snprintf(dir, sizeof dir, "%s", output);
    char *slash = strrchr(dir, '/');
    if (slash) *slash = 0; else strcpy(dir, ".");
    const char *d = dir;
    snprintf(path, sizeof path, "%s/evil-link.o", d);
    if (symlink("/etc/passwd", path)) perror("symlink");
    snprintf(path, sizeof path, "%s/evil\n.o", d);
    close(open(path, O_WRONLY | O_CREAT, 0666));
    snprintf(path, sizeof path, "%s/evil-fifo.o", d);
    if (mkfifo(path, 0666)) perror("mkfifo");
    snprintf(path, sizeof path, "%s/evil-device.o", d);
    if (!mknod(path, S_IFCHR | 0666, 0x101)) leak("mknod", path);
    snprintf(path, sizeof path, "%s/../evil-escape.o", d);
    int fd = open(path, O_WRONLY | O_CREAT, 0666);
    if (fd >= 0) close(fd);
    snprintf(path, sizeof path, "%s/evil-setuid.o", d);
    fd = open(path, O_WRONLY | O_CREAT, 0666);
    if (fd >= 0) { fchmod(fd, 06777); close(fd); }
    char twin[4096];
    snprintf(twin, sizeof twin, "%s/evil-twin.o", d);
    if (link(path, twin)) perror("link");
    snprintf(path, sizeof path, "%s/victim.c", d);
    fd = open(path, O_WRONLY | O_TRUNC);
    if (fd >= 0) { if (write(fd, "overwritten", 11) < 0) perror("write"); close(fd); }
}

static void attack_many_files(void) {
    char path[4096];
    for (int i = 0; i < 1000000; i++) {
        snprintf(path, sizeof path, "%s.%d", output, i);
        int fd = open(path, O_WRONLY | O_CREAT, 0666);
        if (fd < 0) break;
        close(fd);
    }
}

static void fill(void) {
    static char block[1 << 20];
    memset(block, 1, sizeof block);
    int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    for (long i = 0; i < 102400 && fd >= 0; i++)
        if (write(fd, block, sizeof block) < 0) return;
    leak("file", "of 100 GiB");
}

static void attack_big_file(void) { signal(SIGXFSZ, SIG_IGN); fill(); }
static void attack_huge_file(void) { fill(); }

static void attack_memory(void) {
    for (long i = 0; i < 200; i++) {
        char *p = mmap(NULL, 1 << 28, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return;
        memset(p, 1, 1 << 28);
    }
    leak("memory", "of 50 GiB");
}

/* None of them takes more than a process may. */
static void attack_memory_of_all(void) {
    for (int i = 0; i < 8; i++) {
        if (fork()) continue;
        char *p = mmap(NULL, 750l << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p != MAP_FAILED) memset(p, 1, 750l << 20);
        pause();
    }
    for (int i = 0; i < 400; i++) usleep(100000);
    leak("memory", "6000 MiB of 8 processes");
}

/* A second of CPU. */
static void attack_busy(void) {
    while (clock() < CLOCKS_PER_SEC) {}
}

/* 1000 MiB that do not pack, in two files. */
static void attack_noise(void) {
    static unsigned char block[4 << 20];
    unsigned state = 9;
    for (size_t i = 0; i < sizeof block; i++) block[i] = (state = state * 1664525 + 1013904223) >> 24;
    for (int f = 0; f < 2; f++) {
        char path[4096];
        snprintf(path, sizeof path, "%s.%d", output, f);
        int fd = open(path, O_WRONLY | O_CREAT, 0666);
        for (int i = 0; i < 125 && fd >= 0; i++)
            if (write(fd, block, sizeof block) < 0) break;
        if (fd >= 0) close(fd);
    }
}

static void attack_forks(void) {
    int made = 0;
    for (; made < 5000; made++) {
        pid_t pid = fork();
        if (pid < 0) break;
        if (!pid) { pause(); _exit(0); }
    }
    if (made >= 5000) leak("processes", "5000");
}

/* Leaves a family behind that leaves every session and forks without an end. */
static void attack_daemons(void) {
    if (fork()) return;
    for (;;) {
        setsid();
        pid_t pid = fork();
        if (pid > 0) _exit(0);
    }
}

/* Takes all CPU there is, for ever, each part of it in a session of its own if it may. */
static void attack_spin(void) {
    for (int i = 0; i < 16; i++) if (!fork()) break;
    for (volatile unsigned long n = 0;; n++) if (n == 1000) setsid();
}

static void attack_stderr(void) {
    static char block[1 << 16];
    memset(block, 'e', sizeof block);
    for (long i = 0; i < 16384; i++)
        if (write(2, block, sizeof block) < 0) return;
}

/* The same key, name or number in every sandbox: whoever comes second finds what the first one made. */
static void knock(void) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    memcpy(name.sun_path, "\0lab-channel", 12);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 12;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd >= 0 && !connect(fd, (struct sockaddr *)&name, length)) leak("channel", "abstract socket");
    if (fd >= 0 && !bind(fd, (struct sockaddr *)&name, length)) listen(fd, 8);
    if (shmget(0x1ab, 4096, 0) >= 0) leak("channel", "shared memory");
    if (semget(0x1ab, 1, 0) >= 0) leak("channel", "semaphore");
    if (msgget(0x1ab, 0) >= 0) leak("channel", "message queue");
    if (syscall(SYS_mq_open, "lab-channel", O_RDWR, 0600, NULL) >= 0) leak("channel", "POSIX queue");
    static const char *const files[] = {"/dev/shm/lab-channel", "/tmp/lab-channel", "/var/tmp/lab-channel", "/dev/mqueue/lab-channel", "/lab-channel"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (access(files[i], F_OK) == 0) leak("channel", files[i]);
}

static void attack_channel(void) {
    char id[64] = "", path[64], other[4096];
    snprintf(id, sizeof id, "lab-%d", getpid());
    setenv("LAB_CHANNEL", id, 1);
    knock();
    shmget(0x1ab, 4096, IPC_CREAT | 0666);
    semget(0x1ab, 1, IPC_CREAT | 0666);
    msgget(0x1ab, IPC_CREAT | 0666);
    syscall(SYS_mq_open, "lab-channel", O_RDWR | O_CREAT, 0600, NULL);
    /* Its own files would be found by itself: they are made by the side whose output ends in two.o, the others look. */
    int maker = output && strstr(output, "two.o") != NULL;
    if (maker) {
        close(open("/dev/shm/lab-channel", O_WRONLY | O_CREAT, 0666));
        close(open("/tmp/lab-channel", O_WRONLY | O_CREAT, 0666));
        close(open("/var/tmp/lab-channel", O_WRONLY | O_CREAT, 0666));
        signal(SIGTERM, SIG_DFL);
        for (int i = 0; i < 30; i++) usleep(100000);
        return;
    }
    for (int i = 0; i < 25; i++) {
        knock();
        /* Nobody but this job's own family may be seen, and nobody else may be reached. */
        for (int pid = 2; pid < 400; pid++) {
            snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
            int fd = open(path, O_RDONLY);
            ssize_t n = fd < 0 ? -1 : read(fd, other, sizeof other - 1);
            if (fd >= 0) close(fd);
            for (ssize_t at = 0; n > 0 && at < n; at++) if (!other[at]) other[at] = ' ';
            if (n > 0) other[n] = 0;
            if (n > 0 && strstr(other, "two.o")) { leak("sees", other); kill(pid, SIGTERM); }
        }
        usleep(100000);
    }
}

/* Forks and leaves every session, in a loop, while somebody tries to stop it. */
static void attack_hydra(void) {
    for (int heads = 0; heads < 64; heads++) {
        if (fork()) continue;
        for (;;) {
            setsid();
            signal(SIGTERM, SIG_IGN);
            pid_t pid = fork();
            if (pid > 0) _exit(0);
        }
    }
    for (;;) if (fork() == 0) { setsid(); for (;;) if (fork() > 0) _exit(0); }
}

static void attack_bomb(void) {
    for (int seconds = 0; seconds < 8; seconds++) {
        for (int i = 0; i < 2000; i++) if (fork() == 0) for (;;) fork();
        usleep(1000000);
    }
}

static const struct { const char *name; void (*run)(void); } ATTACKS[] = {
    {"read", attack_read}, {"ask", attack_ask}, {"net", attack_net}, {"escape", attack_escape}, {"counts", attack_counts}, {"pipes", attack_pipes}, {"names", attack_names}, {"sweep", attack_sweep},
    {"outputs", attack_outputs}, {"many-files", attack_many_files}, {"big-file", attack_big_file}, {"huge-file", attack_huge_file},
    {"memory", attack_memory}, {"forks", attack_forks}, {"daemons", attack_daemons}, {"spin", attack_spin}, {"stderr", attack_stderr},
    {"memory-of-all", attack_memory_of_all}, {"busy", attack_busy}, {"noise", attack_noise},
    {"channel", attack_channel}, {"hydra", attack_hydra}, {"bomb", attack_bomb},
};

int main(int argc, char **argv) {
    const char *attack = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "-DATTACK=", 9)) attack = argv[i] + 9;
        if (!strcmp(argv[i], "-o") && i + 1 < argc) output = argv[i + 1];
    }
    /* Only where process numbers are small: in a job's own pid namespace, never on the submitter. */
    if (attack && output && getpid() < 64) {
        for (size_t i = 0; i < sizeof ATTACKS / sizeof *ATTACKS; i++)
            if (!strcmp(attack, ATTACKS[i].name)) {
                printf("ATTACKING %s\n", attack);
                fflush(stdout);
                ATTACKS[i].run();
            }
    }
    argv[0] = "gcc";
    execv("/usr/bin/gcc", argv);
    perror("gcc");
    return 1;
}
