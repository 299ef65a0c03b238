//go:build ignore

// usage: kernel LIBRARY OUT    writes the flat kernel of a libkrunfw to OUT and
// prints its load address.
#include <dlfcn.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

int main(int argc, char **argv) {
	void *l = argc == 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
	if (!l)
		return fprintf(stderr, "kernel: %s\n", argc == 3 ? dlerror() : "usage: kernel LIBRARY OUT"), 1;
	char *(*get)(uint64_t *, uint64_t *, size_t *) = dlsym(l, "krunfw_get_kernel");
	uint64_t load, entry;
	size_t size;
	const char *k = get ? get(&load, &entry, &size) : NULL;
	FILE *f = k ? fopen(argv[2], "w") : NULL;
	if (!f || fwrite(k, 1, size, f) != size || fclose(f))
		return fprintf(stderr, "kernel: cannot write the kernel of %s to %s\n", argv[1], argv[2]), 1;
	printf("%" PRIu64 "\n", load);
	return 0;
}
