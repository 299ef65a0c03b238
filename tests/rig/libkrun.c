// A stand-in for libkrun-sev.so.1, for tests only: it protects nothing. It has
// the functions that crun's krun handler calls, records each call, and opens
// libkrunfw where libkrun does (dlopen by bare soname in krun_create_ctx, on
// the host's side of the container's namespaces). krun_start_enter executes
// the program vmm in its place, which follows libkrun's rules for console,
// signals and exit status and has QEMU run the guest.
//
// The directory that holds this library is the rig:
//   vmm         runs inside the container, mounted at /.rig/vmm
//   log/        calls.jsonl of the call below, and of vmm
//   initrd2disk program that reads an initrd and writes a root disk (optional)
//
// Debian's libkrunfw kernel has no initrd, so the one that libkrunfw-sev hands
// over becomes the root disk of the guest.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char rig[4096], tee_config[4096], root_disk[4096];
static char *kernel, *initrd, *qboot, *disk; // contents
static size_t kernel_size, initrd_size, qboot_size, disk_size;
static uint64_t load_address;

// Records go through a mapping, which outlives pivot_root and closed files.
enum { LOG_SIZE = 1 << 16 };
static char *log_page;
static size_t log_used;

__attribute__((format(printf, 1, 2))) static void record(const char *format, ...) {
	char line[8192];
	va_list a;
	va_start(a, format);
	int n = vsnprintf(line, sizeof line, format, a);
	va_end(a);
	if (n < 0 || (size_t)n >= sizeof line || !log_page || log_used + n > LOG_SIZE)
		return;
	memcpy(log_page + log_used, line, n);
	log_used += n;
}

static void open_log(void) {
	char path[4200];
	snprintf(path, sizeof path, "%s/log/calls.jsonl", rig);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return;
	if (ftruncate(fd, LOG_SIZE) == 0) {
		void *p = mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		log_page = p == MAP_FAILED ? NULL : p;
		if (log_page)
			memset(log_page, '\n', LOG_SIZE);
	}
	close(fd);
}

static int memory_file(const char *name, const void *p, size_t n) {
	int fd = memfd_create(name, 0);
	for (size_t at = 0; fd >= 0 && at < n;) {
		ssize_t w = write(fd, (const char *)p + at, n - at);
		if (w <= 0) {
			close(fd);
			return -1;
		}
		at += w;
	}
	return fd;
}

// make_disk has the host's tools turn the initrd into a root disk. Its content
// is kept in memory: files do not survive the way into the container.
static void make_disk(void) {
	char program[4200], in[64];
	snprintf(program, sizeof program, "%s/initrd2disk", rig);
	int fd = memory_file("initrd", initrd, initrd_size), out = memfd_create("disk", 0);
	if (access(program, X_OK) || fd < 0 || out < 0)
		return;
	snprintf(in, sizeof in, "/proc/%d/fd/%d", getpid(), fd);
	pid_t p = fork();
	if (p == 0) {
		dup2(out, 1);
		unsetenv("LD_LIBRARY_PATH");
		execl(program, program, in, NULL);
		_exit(127);
	}
	int status = -1;
	struct stat st;
	waitpid(p, &status, 0);
	if (status == 0 && fstat(out, &st) == 0 && st.st_size > 0) {
		void *m = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, out, 0);
		if (m != MAP_FAILED)
			disk = m, disk_size = st.st_size;
	}
	record("{\"root_disk_bytes\":%zu,\"status\":%d}\n", disk_size, status);
	close(fd), close(out);
}

int32_t krun_create_ctx(void) {
	Dl_info self;
	if (!dladdr((void *)krun_create_ctx, &self))
		return -EINVAL;
	snprintf(rig, sizeof rig, "%s", self.dli_fname);
	char *slash = strrchr(rig, '/');
	if (slash)
		*slash = 0;
	open_log();
	void *fw = dlopen("libkrunfw-sev.so.5", RTLD_LAZY | RTLD_LOCAL);
	struct link_map *map = NULL;
	if (fw)
		dlinfo(fw, RTLD_DI_LINKMAP, &map);
	record("{\"call\":\"krun_create_ctx\",\"firmware\":\"%s\"}\n", map ? map->l_name : "");
	if (!fw)
		return 0; // as libkrun: the failure shows in krun_start_enter
	char *(*get_kernel)(uint64_t *, uint64_t *, size_t *) = dlsym(fw, "krunfw_get_kernel");
	char *(*get_initrd)(size_t *) = dlsym(fw, "krunfw_get_initrd");
	char *(*get_qboot)(size_t *) = dlsym(fw, "krunfw_get_qboot");
	uint64_t entry;
	if (get_kernel)
		kernel = get_kernel(&load_address, &entry, &kernel_size);
	if (get_initrd)
		initrd = get_initrd(&initrd_size);
	if (get_qboot)
		qboot = get_qboot(&qboot_size);
	if (initrd)
		make_disk();
	return 0;
}

int32_t krun_set_root_disk(uint32_t ctx, const char *path) {
	snprintf(root_disk, sizeof root_disk, "%s", path);
	record("{\"call\":\"krun_set_root_disk\",\"path\":\"%s\"}\n", path);
	return 0;
}

int32_t krun_set_tee_config_file(uint32_t ctx, const char *path) {
	snprintf(tee_config, sizeof tee_config, "%s", path);
	record("{\"call\":\"krun_set_tee_config_file\",\"path\":\"%s\"}\n", path);
	return 0;
}

int32_t krun_set_vm_config(uint32_t ctx, uint8_t cpus, uint32_t ram) {
	record("{\"call\":\"krun_set_vm_config\",\"cpus\":%u,\"ram_mib\":%u}\n", cpus, ram);
	return 0;
}

// The rest only leaves a record: a TEE build of libkrun ignores it.
#define RECORDED(name, ...) \
	int32_t name(__VA_ARGS__) { record("{\"call\":\"" #name "\"}\n"); return 0; }
RECORDED(krun_free_ctx, uint32_t c)
RECORDED(krun_set_log_level, uint32_t level)
RECORDED(krun_set_root, uint32_t c, const char *p)
RECORDED(krun_add_virtiofs2, uint32_t c, const char *tag, const char *p, uint64_t shm)
RECORDED(krun_set_data_disk, uint32_t c, const char *p)
RECORDED(krun_set_gpu_options, uint32_t c, uint32_t f)
RECORDED(krun_check_nested_virt, void)
RECORDED(krun_set_nested_virt, uint32_t c, bool on)
RECORDED(krun_add_net_unixstream, uint32_t c, const char *p, int fd, uint8_t *mac, uint32_t f, uint32_t fl)
RECORDED(krun_set_exec, uint32_t c, const char *e, const char *const a[], const char *const v[])
RECORDED(krun_set_workdir, uint32_t c, const char *p)
RECORDED(krun_set_env, uint32_t c, const char *const v[])
RECORDED(krun_set_port_map, uint32_t c, const char *const v[])
RECORDED(krun_set_passt_fd, uint32_t c, int fd)
RECORDED(krun_set_gvproxy_path, uint32_t c, char *p)
RECORDED(krun_set_console_output, uint32_t c, const char *p)
int32_t krun_set_kernel(uint32_t c, const char *k, uint32_t f, const char *i, const char *a) { return -EOPNOTSUPP; }

int32_t krun_start_enter(uint32_t ctx) {
	record("{\"call\":\"krun_start_enter\"}\n");
	if (!kernel) {
		fprintf(stderr, "Couldn't find or load libkrunfw-sev.so.5\n");
		return -ENOENT;
	}
	// libkrun opens the root disk read-write and says no more than this.
	int fd = open(root_disk, O_RDWR);
	if (fd < 0) {
		int e = errno;
		fprintf(stderr, "Error configuring virtio-blk for block\n");
		return -e;
	}
	char text[4][16], d[16], load[32], *file[4] = {kernel, qboot, initrd, disk};
	size_t size[4] = {kernel_size, qboot_size, initrd_size, disk_size};
	for (int i = 0; i < 4; i++)
		snprintf(text[i], sizeof text[i], "%d", memory_file("part", file[i], size[i]));
	snprintf(d, sizeof d, "%d", fd);
	snprintf(load, sizeof load, "%#lx", load_address);
	execl("/.rig/vmm", "vmm", load, text[0], text[1], text[2], text[3], d, tee_config, NULL);
	int e = errno;
	fprintf(stderr, "executing /.rig/vmm: %s\n", strerror(e));
	return -e;
}
