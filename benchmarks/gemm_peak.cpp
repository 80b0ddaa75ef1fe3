// What f32 products reach on this machine with the libtorch that tailor-tune links: the roof that a training step is
// held against. Prints one JSON line.

#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "timing.h"

namespace {

struct Speed {
  double gflops = 0;                 // of the fastest run
  double gflops_per_cpu_second = 0;  // of the run that took the least processor time
};

Speed measure(std::int64_t size, int runs) {
  const at::Tensor a = at::rand({size, size}), b = at::rand({size, size});
  const double gflops = 2e-9 * static_cast<double>(size) * static_cast<double>(size) * static_cast<double>(size);
  Speed best;
  for (int i = 0; i < runs; ++i) {
    const tailor::bench::Stopwatch watch;
    const at::Tensor c = at::mm(a, b);
    const tailor::bench::Seconds seconds = watch.elapsed();
    best.gflops = std::max(best.gflops, gflops / seconds.wall);
    best.gflops_per_cpu_second = std::max(best.gflops_per_cpu_second, gflops / seconds.cpu);
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("f32 products of large square matrices by libtorch");
  std::int64_t size = 3072;
  int threads = 1, runs = 8;
  app.add_option("--size", size, "rows and columns");
  app.add_option("--threads", threads);
  app.add_option("--runs", runs, "the best one counts");
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(threads);
  measure(512, 2);  // threads and pages
  const Speed speed = measure(size, runs);
  std::printf("{\"threads\": %d, \"size\": %lld, \"gflops\": %.1f, \"gflops_per_cpu_second\": %.1f}\n", threads,
              static_cast<long long>(size), speed.gflops, speed.gflops_per_cpu_second);
}
