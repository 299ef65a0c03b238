// AES-256-XTS by libcrypto, for BenchmarkXTSPeers: reads a number of 4096-byte
// sectors a line, encrypts as many, and says how many nanoseconds of CPU time
// that took.
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static unsigned char buf[4096], key[64];

static long long now(void) {
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(void) {
	long n;
	for (int i = 0; i < 64; i++)
		key[i] = i;
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	if (!c || EVP_EncryptInit_ex(c, EVP_aes_256_xts(), NULL, key, NULL) != 1)
		return 1;
	while (scanf("%ld", &n) == 1) {
		long long start = now();
		for (long i = 0; i < n; i++) {
			unsigned char iv[16] = {0};
			unsigned long sector = 8 * (unsigned long)i;
			int out;
			memcpy(iv, &sector, 8);
			if (EVP_EncryptInit_ex(c, NULL, NULL, NULL, iv) != 1 || EVP_EncryptUpdate(c, buf, &out, buf, sizeof buf) != 1)
				return 1;
		}
		printf("%lld\n", now() - start);
		fflush(stdout);
	}
	return 0;
}
