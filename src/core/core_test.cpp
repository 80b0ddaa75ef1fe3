#include <gtest/gtest.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <set>

#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/process.h"
#include "core/result.h"
#include "core/rng.h"
#include "core/system.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

Result<int> half(int n) {
  if (n % 2 != 0) return Error{ErrorCode::kInvalidArgument, "odd: " + std::to_string(n), "give an even number"};
  return n / 2;
}
Result<int> quarter(int n) {
  TAILOR_TRY(const int h, half(n));
  return half(h);
}

TEST(Result, CarriesValueOrError) {
  EXPECT_EQ(quarter(8).value(), 2);
  const auto bad = quarter(6);
  ASSERT_FALSE(bad);
  EXPECT_EQ(to_string(bad.error()), "odd: 3 (give an even number)");
  EXPECT_EQ(exit_code_for(bad.error().code), 2);
  EXPECT_THROW(std::ignore = bad.value(), Exception);
}

TEST(Rng, MatchesTheDocumentedFormula) {
  // Values of SplitMix64's finaliser computed by hand from the formula in rng.h (and mirrored by counter_rng.py).
  Rng rng(7, 3);
  const std::uint64_t key = Rng::mix(7 + 0x9E3779B97F4A7C15ULL * 4);
  EXPECT_EQ(rng.bits(), Rng::mix(key + 0x9E3779B97F4A7C15ULL));
  EXPECT_EQ(Rng::mix(1), 0x5692161D100B05E5ULL);
  Rng a(1), b(1);
  b.set_counter(2);
  a.bits();
  a.bits();
  EXPECT_EQ(a.bits(), b.bits());
}

TEST(Rng, BelowStaysInRangeAndShuffleIsAPermutation) {
  Rng rng(11);
  for (int i = 0; i < 1000; ++i) EXPECT_LT(rng.below(7), 7U);
  std::vector<int> v(50);
  for (int i = 0; i < 50; ++i) v[static_cast<std::size_t>(i)] = i;
  rng.shuffle(v);
  EXPECT_EQ(std::set<int>(v.begin(), v.end()).size(), 50U);
  EXPECT_NE(v.front() * 100 + v.back(), 49);
}

TEST(Hash, Sha256OfTheStandardsExample) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");  // FIPS 180-4, B.1
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Files, AtomicWriteReplacesAndLeavesNothingBeside) {
  const TemporaryDirectory dir;
  const fs::path file = dir.path() / "a.txt";
  write_file_atomic(file, "one").value();
  write_file_atomic(file, "two").value();
  EXPECT_EQ(read_file(file).value(), "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1);
}

TEST(Files, FailedFillKeepsTheOldFile) {
  const TemporaryDirectory dir;
  const fs::path file = dir.path() / "a.txt";
  write_file_atomic(file, "old").value();
  const Status status = write_stream_atomic(file, [](std::ostream& out) -> Status {
    out << "half";
    return Error{ErrorCode::kInternal, "stopped", ""};
  });
  EXPECT_FALSE(status);
  EXPECT_EQ(read_file(file).value(), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1);
}

TEST(Files, FullDiskIsOneSentenceAndKeepsTheOldFile) {
  // RLIMIT_FSIZE makes write() fail as a full disk does (EFBIG); the limit is put back at once.
  const TemporaryDirectory dir;
  const fs::path file = dir.path() / "big";
  write_file_atomic(file, "old").value();
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 4096;
  auto* const old_handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const Status status = write_file_atomic(file, std::string(1 << 20, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_EQ(read_file(file).value(), "old");
}

TEST(Files, ErrorsNameThePath) {
  const auto absent = read_file("/nonexistent/file.csv");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  EXPECT_NE(absent.error().message.find("/nonexistent/file.csv"), std::string::npos);
  const TemporaryDirectory dir;
  EXPECT_EQ(read_file(dir.path()).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(MappedFile::open(dir.path()).error().code, ErrorCode::kInvalidArgument);
}

TEST(JsonFiles, RefusesNumbersThatNoDoubleHolds) {
  const auto json = parse_json("{\"rate\": -3e1111110}", "job.json");
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().code, ErrorCode::kCorruptData);
  EXPECT_NE(json.error().message.find("job.json: not valid JSON: number overflow"), std::string::npos)
      << json.error().message;
}

TEST(JsonFiles, RefusesDeepNestingAndNamesTheLine) {
  EXPECT_FALSE(parse_json(std::string(100, '[') + std::string(100, ']'), "x"));
  EXPECT_TRUE(parse_json("\"[[[[[[\"", "x"));
  const TemporaryDirectory dir;
  const fs::path file = dir.path() / "a.jsonl";
  write_file_atomic(file, "{\"a\":1}\n\n{\"a\":").value();
  EXPECT_EQ(read_jsonl(file, true).value().size(), 1U);
  const auto bad = read_jsonl(file);
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("a.jsonl:3"), std::string::npos);
}

TEST(Process, ReportsLinesExitCodeAndUse) {
  std::vector<std::string> lines;
  const CancelToken cancel;
  const auto result =
      run_process(
          {.command = {"/bin/sh", "-c", "echo one; echo $TAILOR_X; exit 3"}, .environment = {{"TAILOR_X", "two"}}},
          [&](std::string_view line) { lines.emplace_back(line); }, cancel)
          .value();
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.signal, 0);
  EXPECT_GT(result.peak_memory_bytes, 0U);
}

TEST(Process, CancelEndsTheChild) {
  CancelToken cancel;
  const auto result = run_process(
                          {.command = {"/bin/sh", "-c", "echo up; exec sleep 1000"}},
                          [&](std::string_view) { cancel.cancel(); }, cancel)
                          .value();
  EXPECT_EQ(result.signal, SIGTERM);
}

TEST(Process, WhatHearsItsLinesMayThrow) {
  const CancelToken cancel;
  pid_t child = 0;
  const auto hear = [&](std::string_view line) {
    child = std::stoi(std::string(line));
    throw std::runtime_error("enough");
  };
  EXPECT_THROW((void)run_process({.command = {"/bin/sh", "-c", "echo $$; exec sleep 1000"}}, hear, cancel),
               std::runtime_error);
  ASSERT_GT(child, 0);
  EXPECT_EQ(::kill(child, 0), -1) << "it is gone";
  EXPECT_EQ(errno, ESRCH);
}

TEST(Process, MissingProgramIsAnErrorNotAChild) {
  const CancelToken cancel;
  const auto result = run_process({.command = {"/nonexistent/program"}}, {}, cancel);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kUnavailable);
}

TEST(System, MemoryOfThisProcessAndWhatItsHeapHoldsInReserve) {
#ifdef __GLIBC__
  constexpr std::size_t kBytes = 64 << 20;
  mallopt(M_MMAP_THRESHOLD, 1 << 30);  // large blocks into the heap
  auto large = std::make_unique<char[]>(kBytes);
  const auto above = std::make_unique<char[]>(1 << 20);  // the heap cannot shrink below it
  std::fill_n(large.get(), kBytes, 'x');
  std::fill_n(above.get(), 1 << 20, 'y');
  const MemoryNow with = memory_now();
  EXPECT_GT(with.resident, kBytes);
  large.reset();
  release_free_memory();
  const MemoryNow without = memory_now();
  EXPECT_LT(without.resident + kBytes / 2, with.resident);
  EXPECT_GT(without.idle_heap, with.idle_heap + kBytes / 2);
  // Nearly what all of it was.
  const auto all = [](const MemoryNow& m) { return static_cast<double>(m.resident + m.idle_heap); };
  EXPECT_NEAR(all(without), all(with), 4 << 20);
#endif
}

#ifdef __GLIBC__
/// Bytes in mappings of their own after a block of so many was allocated, and after it was freed.
std::pair<std::size_t, std::size_t> mapped_with(std::size_t bytes) {
  void* volatile block = std::malloc(bytes);
  const std::size_t with = mallinfo2().hblkhd;
  std::free(block);
  return {with, mallinfo2().hblkhd};
}

TEST(System, LargeBlocksAreGivenBackHoweverManyWereFreed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // in a process whose heap has nothing free yet
  const auto check = [] {
    give_large_blocks_back();
    for (int i = 0; i < 3; ++i) mapped_with(16 << 20);  // would move the limit
    const auto [large, after] = mapped_with(512 << 10);
    const auto [small, end] = mapped_with(128 << 10);
    std::exit(large >= (512 << 10) && after == 0 && small == 0 && end == 0 ? 0 : 1);
  };
  EXPECT_EXIT(check(), ::testing::ExitedWithCode(0), "");
}
#endif

TEST(System, ReportsCoresAndMemory) {
  const SystemInfo info = system_info();
  EXPECT_GE(info.cores, 1);
  EXPECT_GT(info.memory_bytes, std::uint64_t{1} << 20);
}

}  // namespace
}  // namespace tailor
