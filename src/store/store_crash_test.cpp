/// A process that writes is killed again and again; nothing it was told is safe may be missing, nothing half be seen.

#include <array>
#include <chrono>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>

#include "core/rng.h"
#include "store/store_testing.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

std::string content_of(std::uint64_t seed) {
  Rng rng(seed);
  return std::string(1 + rng.below(50'000), static_cast<char>('a' + rng.below(26)));
}

/// Writes to the store forever and tells the parent what the store said is done.
void write_forever(const fs::path& root, const fs::path& source, std::uint64_t round, Child& parent) {
  const auto store = Store::open(root).value();
  parent.say("open");
  for (std::uint64_t i = 0;; ++i) {
    const std::uint64_t seed = round * 1'000'000 + i;
    const AuditAnchor anchor = store->audit().append({"child", "write", std::to_string(seed), {{"i", i}}}).value();
    parent.say("audit " + std::to_string(anchor.count) + " " + anchor.hash);

    const std::string job = store->jobs().create("k", {{"seed", seed}}).value().id;
    parent.say("job " + job + " 0");
    store->jobs().move(job, JobStatus::kQueued).value();
    parent.say("job " + job + " 1");
    store->jobs().move(job, JobStatus::kRunning).value();
    store->jobs().add_event(job, {.message = "step"}).value();
    parent.say("job " + job + " 2");
    if (i % 3 != 0) {
      store->jobs().move(job, JobStatus::kSucceeded, {.result = {{"seed", seed}}}).value();
      parent.say("job " + job + " 3");
    }

    const FileRecord file = store->files().add("f", "batch", "k", content_of(seed)).value();
    parent.say("file " + file.id + " " + sha256_hex(content_of(seed)));
    if (i % 2 == 0) {
      parent.say("removing " + file.id);
      store->files().remove(file.id).value();
      parent.say("removed " + file.id);
    }

    const std::string version = std::to_string(seed);
    store->packages().add("p", version, source, {}).value();
    parent.say("package " + version);
    store->packages().promote("p", version, "child").value();
    parent.say("promoted " + version);
    if (i % 2 == 1) {
      const std::string before = store->packages().rollback("p", "child").value();
      parent.say("promoted " + before);
      parent.say("removing package " + version);
      store->packages().remove("p", version).value();
      parent.say("removed package " + version);
    }

    const CreatedApiKey key = store->keys().create({.name = "k"}).value();
    parent.say("key " + key.secret);
  }
}

/// What the child was told is done, over all rounds.
struct Told {
  AuditAnchor anchor;
  std::map<std::string, int> jobs;           // how far each had come
  std::map<std::string, std::string> files;  // SHA-256 of each
  std::set<std::string> packages, removed, removing, keys;
  std::string promoted;
  bool promotion_open = false;  // what comes next changes it; it may have happened

  void hear(const std::string& line) {
    std::istringstream words(line);
    std::string what, a, b;
    words >> what >> a >> b;
    promotion_open = what == "package" || what == "promoted";
    if (what == "audit") anchor = {std::stoll(a), b};
    if (what == "job") jobs[a] = std::stoi(b);
    if (what == "file") files[a] = b;
    if (what == "package") packages.insert(a);
    if (what == "promoted") promoted = a;
    if (what == "removing") removing.insert(a == "package" ? b : a);
    if (what == "removed") removed.insert(a == "package" ? b : a);
    if (what == "key") keys.insert(a);
    EXPECT_NE(what, "error") << line;
  }
};

int progress(JobStatus status) {
  switch (status) {
    case JobStatus::kValidatingFiles:
      return 0;
    case JobStatus::kQueued:
      return 1;
    case JobStatus::kRunning:
      return 2;
    default:
      return 3;
  }
}

/// Everything told is there, and the disk holds nothing else.
void check(Store& store, const Told& told) {
  const AuditVerdict verdict = store.audit().verify(told.anchor).value();
  EXPECT_TRUE(verdict.intact) << verdict.reason;
  EXPECT_LE(verdict.head.count, told.anchor.count + 1);

  for (const auto& [id, at_least] : told.jobs) {
    const auto job = store.jobs().find(id);
    ASSERT_TRUE(job) << id;
    EXPECT_GE(progress(job->status), at_least) << id;
    if (at_least >= 2) {
      EXPECT_FALSE(store.jobs().events(id, {}).value().data.empty());
    }
    if (job->status == JobStatus::kSucceeded) {
      EXPECT_EQ(job->result["seed"], job->request["seed"]);
    }
  }

  std::set<std::string> known;
  for (const FileRecord& file : store.files().list({.limit = 10'000}).value().data) {
    known.insert(file.id);
    EXPECT_TRUE(store.files().check_content(file)) << file.id;
    if (const auto wrote = told.files.find(file.id); wrote != told.files.end()) {
      EXPECT_EQ(file.sha256, wrote->second);
    }
  }
  for (const auto& [id, hash] : told.files) {
    if (told.removed.contains(id)) {
      EXPECT_FALSE(known.contains(id)) << id;
    }
    if (!told.removing.contains(id)) {
      EXPECT_TRUE(known.contains(id)) << id;
    }
  }
  EXPECT_EQ(entries(store.directory().files()), known.size());

  known.clear();
  for (const PackageRecord& package : store.packages().list("p").value()) {
    known.insert(package.version);
    EXPECT_EQ(sha256_file(package.path / "manifest.json").value(), package.lineage.manifest_sha256);
    EXPECT_EQ(fs::file_size(package.path / "base" / "model.bin"), 20'000U) << package.path;
  }
  for (const std::string& version : told.packages) {
    if (told.removed.contains(version)) {
      EXPECT_FALSE(known.contains(version)) << version;
    }
    if (!told.removing.contains(version)) {
      EXPECT_TRUE(known.contains(version)) << version;
    }
  }
  if (fs::exists(store.directory().packages() / "p")) {
    EXPECT_EQ(entries(store.directory().packages() / "p"), known.size());
  }
  EXPECT_EQ(entries(store.directory().root() / "sessions"), 1U);
  const auto promoted = store.packages().promoted("p").value();
  if (!told.promoted.empty() && !told.promotion_open) {
    ASSERT_TRUE(promoted);
    EXPECT_EQ(promoted->version, told.promoted);
  }
  for (const std::string& secret : told.keys) EXPECT_TRUE(store.keys().authenticate(secret, 0)) << "a key was lost";
}

/// In memory where there is room: what a killed process had written is not lost with it, and flushing to a busy disk
/// takes most of the time.
std::string place() {
  std::error_code error;
  const fs::space_info memory = fs::space("/dev/shm", error);
  return !error && memory.available > (std::uintmax_t{1} << 30) ? "/dev/shm/tailor-crash" : "tailor-crash";
}

/// TAILOR_CRASHES sets how often; the slow suite takes 1000.
TEST(StoreCrash, NothingThatWasAcknowledgedIsLostAndNothingHalfIsSeen) {
  const char* const wanted = std::getenv("TAILOR_CRASHES");
  const int crashes = wanted != nullptr ? std::atoi(wanted) : 100;
  const TemporaryDirectory dir{place()};
  const fs::path root = dir.path() / "store", source = dir.path() / "source";
  make_directories(source / "base").value();
  write_file_atomic(source / "manifest.json", "{}").value();
  write_file_atomic(source / "base" / "model.bin", std::string(20'000, 'x')).value();
  Rng rng(20240607);
  Told told;
  int reached = 0;
  for (int round = 0; round < crashes; ++round) {
    {
      Child child([&](Child& parent) { write_forever(root, source, static_cast<std::uint64_t>(round), parent); });
      // So many acknowledgements, and then somewhere in the next steps; every tenth while it opens.
      const std::uint64_t lines = round % 10 == 0 ? 0 : 1 + rng.below(40);
      for (std::uint64_t i = 0; i < lines; ++i) {
        const auto line = child.hear();
        ASSERT_TRUE(line) << "the child ended by itself";
        told.hear(*line);
      }
      const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(rng.below(3000));
      while (std::chrono::steady_clock::now() < until) {  // the child goes on meanwhile
      }
      child.kill();
      while (const auto line = child.hear()) told.hear(*line);  // what it had said before it died
    }
    const auto store = Store::open(root, {.check_integrity = true});
    ASSERT_TRUE(store) << to_string(store.error());
    check(**store, told);
    for (const std::string& id : (*store)->jobs().recover().value())
      EXPECT_EQ((*store)->jobs().find(id).value().status, JobStatus::kQueued);
    // A job that was told to run waits again.
    for (auto& [id, at_least] : told.jobs) at_least = at_least == 2 ? 1 : at_least;
    const auto promoted = (*store)->packages().promoted("p").value();
    told.promoted = promoted ? promoted->version : "";
    told.promotion_open = false;
    if (HasFailure()) FAIL() << "in round " << round;
    reached += told.packages.empty() ? 0 : 1;
  }
  EXPECT_GT(reached, crashes / 2) << "the children were killed before they did anything";
}

/// The directory of another process in the making is no foreign one.
TEST(StoreProcesses, SeveralMakeItAtOnce) {
  const TemporaryDirectory dir{place()};
  for (int round = 0; round < 40; ++round) {
    const fs::path root = dir.path() / std::to_string(round);
    const auto work = [&](Child& parent) {
      parent.hear();
      const auto store = Store::open(root).value();
      parent.say("open");
      parent.hear();
    };
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < 6; ++i) children.push_back(std::make_unique<Child>(work));
    for (auto& child : children) child->say("go");
    for (auto& child : children) ASSERT_EQ(child->hear().value_or("ended"), "open") << "in round " << round;
  }
}

TEST(StoreProcesses, TwoAtOnceTakeTurns) {
  const TemporaryDirectory dir{place()};
  const fs::path root = dir.path() / "store", source = dir.path() / "source";
  make_directories(source).value();
  write_file_atomic(source / "manifest.json", "{}").value();
  const auto work = [&](Child& parent) {
    parent.hear();
    const auto store = Store::open(root).value();  // both make it
    for (int i = 0; i < 30; ++i) {
      store->audit().append({"child", "write", "", {}}).value();
      const std::string job = store->jobs().create("k", Json::object()).value().id;
      store->jobs().move(job, JobStatus::kQueued).value();
      const auto added = store->packages().add("p", std::to_string(i), source, {});
      if (added) parent.say("package " + std::to_string(i));
      if (const auto started = store->jobs().start_next().value()) parent.say("started " + started->id);
    }
    parent.say("done");
    parent.hear();  // alive until the other one is done too
  };
  std::array<std::unique_ptr<Child>, 2> children = {std::make_unique<Child>(work), std::make_unique<Child>(work)};
  for (auto& child : children) child->say("go");
  std::multiset<std::string> told;
  for (auto& child : children) {
    for (auto line = child->hear(); line != "done"; line = child->hear()) {
      ASSERT_TRUE(line);
      ASSERT_NE(line->substr(0, 5), "error") << *line;
      told.insert(*line);
    }
  }
  EXPECT_EQ(told.size(), 30U + 60U);
  EXPECT_EQ(std::set<std::string>(told.begin(), told.end()).size(), told.size()) << "something was done twice";
  const auto store = Store::open(root, {.check_integrity = true}).value();
  EXPECT_EQ(store->audit().verify().value().head.count, 60);
  EXPECT_TRUE(store->audit().verify().value().intact);
  EXPECT_EQ(store->packages().list().value().size(), 30U);
}

}  // namespace
}  // namespace tailor
