// Runs a fuzz target without libFuzzer: the seeds, then inputs changed at random, the same in every run.
//
//   fuzz_csv --runs 20000 [--seed 1] [--first 17]      run 17 and the following
//   fuzz_csv FILE ...                                  these inputs

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "core/files.h"
#include "core/rng.h"
#include "fuzz.h"

namespace tailor::fuzz {

void add_invented(std::vector<std::string>& seeds, std::uint64_t seed, int bytes) {
  Rng rng(seed);
  for (int i = 0; i < 30; ++i) {
    std::string input = "q";
    for (int k = 0; k < bytes; ++k) input += static_cast<char>(rng.below(256));
    seeds.push_back(std::move(input));
  }
}

InputFile::InputFile() : descriptor_(memfd_create("input", MFD_CLOEXEC)) {
  if (descriptor_ < 0) throw std::runtime_error("memfd_create failed");
  path_ = "/proc/self/fd/" + std::to_string(descriptor_);
}

InputFile::~InputFile() {
  close(descriptor_);
}

const std::filesystem::path& InputFile::put(std::string_view bytes) {
  if (ftruncate(descriptor_, 0) != 0 ||
      pwrite(descriptor_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    throw std::runtime_error("the input could not be written");
  }
  return path_;
}

namespace {

unsigned long long current_run = 0;

void name_the_input(int signal) {
  std::fprintf(stderr, "\nsignal %d in run %llu; repeat it with --first %llu --runs 1\n", signal, current_run,
               current_run);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

std::size_t below(Rng& rng, std::size_t n) {
  return static_cast<std::size_t>(rng.below(n));
}

void change_once(std::string& bytes, const std::vector<std::string>& all, Rng& rng) {
  static constexpr std::uint64_t kNumbers[] = {0,    1,      2,       7,          8,          0x7F,        0x80,
                                               0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFFU, ~0ULL};
  const std::size_t at = bytes.empty() ? 0 : below(rng, bytes.size());
  switch (rng.below(8)) {
    case 0:
      if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << rng.below(8)));
      break;
    case 1:
      if (!bytes.empty()) bytes[at] = static_cast<char>(rng.below(256));
      break;
    case 2: {  // a number of 1, 2, 4 or 8 bytes
      const std::size_t n = std::min(bytes.size() - at, std::size_t{1} << rng.below(4));
      std::memcpy(bytes.data() + at, &kNumbers[below(rng, std::size(kNumbers))], n);
      break;
    }
    case 3:
      bytes.erase(at, 1 + below(rng, 16));
      break;
    case 4:
      bytes.insert(at, 1 + below(rng, 16), static_cast<char>(rng.below(256)));
      break;
    case 5:
      bytes.insert(at, std::string(bytes.substr(at, 1 + below(rng, 64))));
      break;
    case 6:
      bytes.resize(at);
      break;
    default: {  // a piece of another seed
      const std::string& other = all[below(rng, all.size())];
      const std::size_t from = other.empty() ? 0 : below(rng, other.size());
      bytes.insert(at, other.substr(from, 1 + below(rng, 64)));
    }
  }
}

void run_one(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

int run(int argc, char** argv) {
  unsigned long long runs = 1000, first = 0, seed = 1;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    unsigned long long* number = argument == "--runs"    ? &runs
                                 : argument == "--first" ? &first
                                 : argument == "--seed"  ? &seed
                                                         : nullptr;
    if (number == nullptr) {
      files.emplace_back(argument);
    } else if (++i < argc) {
      *number = std::strtoull(argv[i], nullptr, 10);
    }
  }
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) std::signal(signal, name_the_input);
  for (const auto& file : files) run_one(read_file(file).value());
  if (!files.empty()) return 0;
  const std::vector<std::string> good = seeds();
  for (const std::string& bytes : good) run_one(bytes);
  for (current_run = first; current_run < first + runs; ++current_run) {
    Rng rng(seed, current_run);
    std::string bytes = good[below(rng, good.size())];
    const std::size_t changes = 1 + below(rng, 6);
    for (std::size_t c = 0; c < changes; ++c) change_once(bytes, good, rng);
    run_one(bytes);
  }
  std::printf("%zu seeds and %llu changed inputs: nothing found\n", good.size(), runs);
  return 0;
}

}  // namespace
}  // namespace tailor::fuzz

int main(int argc, char** argv) {
  return tailor::fuzz::run(argc, argv);
}
