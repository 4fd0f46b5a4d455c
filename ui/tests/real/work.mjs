// Real C to compile: files of a chosen weight with the system's headers, a header of their own and a makefile.

/** One function: loops, a switch and floating point, so that -O2 has something to do; different in each place. */
function func(file, n) {
  const k = (file * 131 + n * 17) % 97;
  return `
static double step_${n}(const double *in, double *out, size_t count, unsigned seed)
{
    double sum = ${k}.5;
    for (size_t i = 0; i < count; i++) {
        double x = in[i] * ${k + 1} + seed;
        for (unsigned j = 0; j < ${3 + (k % 5)}; j++) {
            switch ((seed + i + j) % 7) {
            case 0: x = sqrt(fabs(x) + j); break;
            case 1: x = x * x - ${k}; break;
            case 2: x = fmod(x, ${k + 3}.25) + out[(i + j) % count]; break;
            case 3: x += shape(x, j) * 0.5; break;
            case 4: x = (double)(snprintf(NULL, 0, "%u:%zu", seed, i)) - x; break;
            case 5: x = memcmp(in, out, sizeof *in) ? x : -x; break;
            default: x = floor(x / ${k + 2}) + j;
            }
        }
        out[i] = x;
        sum += x;
        seed = seed * 1664525u + ${1013904223 + k}u;
    }
    return sum;
}`;
}

const HEADER = `#ifndef COMMON_H
#define COMMON_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static inline double shape(double x, unsigned j) { return x < j ? x + 1 : x / (j + 1); }
double part(unsigned which, const double *in, double *out, size_t count);
#endif
`;

/** A file with so many functions; about a hundred of them are a second of gcc -O2. */
function source(file, weight) {
  const steps = Array.from({ length: weight }, (_, n) => n);
  return `#include "common.h"
${steps.map((n) => func(file, n)).join('\n')}

double part_${file}(const double *in, double *out, size_t count)
{
    double sum = 0;
${steps.map((n) => `    sum += step_${n}(in, out, count, ${n + file}u);`).join('\n')}
    return sum;
}
`;
}

/** Objects go into $(OUT): the same makefile makes them elsewhere and here. */
const MAKEFILE = `OUT ?= out
CFLAGS ?= -O2
SOURCES := $(wildcard part_*.c) main.c
OBJECTS := $(SOURCES:%.c=$(OUT)/%.o)
EXTRA ?=
all: $(OUT)/program $(EXTRA:%.c=$(OUT)/%.o)
$(OUT)/program: $(OBJECTS)
	gcc -o $@ $^ -lm
$(OUT)/%.o: %.c common.h
	gcc $(CFLAGS) -c $< -o $@
$(OUT)/asked.txt:
	gcc -E -P main.c -o $@
.PHONY: all
`;

/** Writes a project of `files` sources with `weight` functions each into a node's work folder; its folder. */
export function writeProject(node, name, files, weight) {
  const dir = `work/${name}`;
  for (const folder of ['', '/out', '/plain']) node.makeDir(dir + folder);
  node.write(`${dir}/common.h`, HEADER);
  node.write(`${dir}/Makefile`, MAKEFILE);
  const all = Array.from({ length: files }, (_, i) => i);
  for (const i of all) node.write(`${dir}/part_${i}.c`, source(i, weight));
  const calls = all.map((i) => `    sum += part_${i}(in, out, 8);`).join('\n');
  const names = all.map((i) => `double part_${i}(const double *in, double *out, size_t count);`).join('\n');
  node.write(`${dir}/main.c`, `#include "common.h"\n${names}\nint main(void)\n{\n    double in[8] = {1, 2, 3}, out[8] = {0}, sum = 0;\n${calls}\n    printf("%g\\n", sum);\n    return 0;\n}\n`);
  return node.path(dir);
}
