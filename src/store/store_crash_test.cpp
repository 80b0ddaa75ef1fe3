/// A process that writes is killed again and again; nothing it was told is safe may be missing, nothing half be seen.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>

#include "core/rng.h"
#include "store/store_testing.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kDay = 19'000, kOldDay = 100, kUsedAt = 1'000;
constexpr int kRequests = 3, kTokensEach = 7;  // of a batch

std::string content_of(std::uint64_t seed) {
  Rng rng(seed);
  return std::string(1 + rng.below(50'000), static_cast<char>('a' + rng.below(26)));
}

/// Makes every kind of write there is, and tells the parent what the store said is done.
class Writer {
 public:
  Writer(Store& store, const fs::path& source, Child& parent) : store_(store), source_(source), parent_(parent) {}

  static constexpr std::size_t kParts = 7;
  void write(std::size_t part, std::uint64_t seed, std::uint64_t i) {
    switch (part) {
      case 0:
        return audit(store_.audit().append({"child", "write", std::to_string(seed), {{"i", i}}}).value());
      case 1:
        return job(seed, i);
      case 2:
        return batch(i);
      case 3:
        return file(seed, i);
      case 4:
        package(std::to_string(seed), i);
        return audit(store_.audit().head().value());
      case 5:
        key(i);
        return audit(store_.audit().head().value());
      default:
        return tokens();
    }
  }

 private:
  void audit(const AuditAnchor& anchor) { parent_.say("audit " + std::to_string(anchor.count) + " " + anchor.hash); }

  void job(std::uint64_t seed, std::uint64_t i) {
    JobStore& jobs = store_.jobs();
    const std::string made = jobs.create({.owner = "k", .request = {{"seed", seed}}}).value().value().id;
    parent_.say("job " + made + " 0");
    jobs.move(made, JobStatus::kQueued).value();
    parent_.say("job " + made + " 1");
    const Job next = jobs.start_next().value().value();  // perhaps one of a child before
    jobs.add_event(next.id, {.message = "step"}).value();
    parent_.say("job " + next.id + " 2");
    jobs.update_result(next.id, {{"estimated_finish", 5}}).value();
    jobs.add_checkpoint(next.id, 1, "m", {{"train_loss", 1.0}}).value();
    parent_.say("checkpoint " + next.id);
    if (i % 3 == 0) return;
    const Json result{{"seed", next.request["seed"]}, {"fine_tuned_model", "ft:" + next.id}};
    jobs.move(next.id, JobStatus::kSucceeded, {.result = result}).value();
    parent_.say("job " + next.id + " 3");
    if (i % 2 == 0) return;
    parent_.say("removing " + next.id);
    jobs.remove_model(next.id, "child").value();
    parent_.say("removed " + next.id);
    audit(store_.audit().head().value());
  }

  /// Goes on with the oldest there is, from wherever a child before this one left it.
  void batch(std::uint64_t i) {
    BatchStore& batches = store_.batches();
    const NewBatch wanted{.owner = "k",
                          .endpoint = "/v1/embeddings",
                          .input_file = "file-1",
                          .completion_window = "24h",
                          .most_unfinished = 1'000};
    parent_.say("batch " + batches.create(wanted).value().value().id + " 0");
    Batch next = (i % 2 == 0 ? batches.take_next() : batches.take_ending(1)).value().value();
    const auto told = [&](int progress) { parent_.say("batch " + next.id + " " + std::to_string(progress)); };
    if (next.status != BatchStatus::kCancelling && i % 4 == 3) {
      next = batches.move(next.id, BatchStatus::kCancelling).value();
      told(5);
    }
    if (next.status == BatchStatus::kCancelling) {
      batches.move(next.id, BatchStatus::kCancelled).value();
      return told(6);
    }
    if (next.status == BatchStatus::kValidating) {
      batches.move(next.id, BatchStatus::kInProgress, {.total = kRequests, .model = "m"}).value();
      told(1);
    }
    for (std::int64_t n = next.completed + next.failed + 1; n <= kRequests; ++n) {
      const bool last = n == kRequests;
      batches
          .set_progress(next.id,
                        {.completed = last ? n - 1 : n, .failed = last ? 1 : 0, .usage = {{"tokens", kTokensEach * n}}})
          .value();
      told(static_cast<int>(n) + 1);
    }
    batches.move(next.id, BatchStatus::kFinalizing).value();
    told(5);
    const std::string output = output_of(next.id);
    batches.move(next.id, BatchStatus::kCompleted, {.output_file = output}).value();
    told(6);
  }

  /// One of its name that is there was made by a child that was killed then.
  std::string output_of(const std::string& batch) {
    for (const FileRecord& made : store_.files().list({.limit = 10'000}, "batch_output").value().data) {
      if (made.filename == batch) return made.id;
    }
    FileWriter writer = store_.files().begin(batch, "batch_output", "k").value();
    for (int n = 0; n < kRequests; ++n) writer.write(batch + "\n").value();
    return writer.commit().value().id;
  }

  void file(std::uint64_t seed, std::uint64_t i) {
    const FileRecord made = store_.files().add("f", "batch", "k", content_of(seed)).value();
    parent_.say("file " + made.id + " " + sha256_hex(content_of(seed)));
    store_.files().set_status(made.id, "processed", "").value();
    parent_.say("processed " + made.id);
    if (i % 2 != 0) return;
    parent_.say("removing " + made.id);
    store_.files().remove(made.id).value();
    parent_.say("removed " + made.id);
  }

  void package(const std::string& version, std::uint64_t i) {
    constexpr PackagePlacement kPlacements[] = {PackagePlacement::kCopy, PackagePlacement::kHardLink,
                                                PackagePlacement::kReference};
    PackageStore& packages = store_.packages();
    const bool first = !packages.promoted("p").value();
    packages.add("p", version, source_, {}, kPlacements[i % 3]).value();
    parent_.say("package " + version);
    packages.promote("p", version, "child").value();
    parent_.say("promoted " + version);
    if (first || i % 2 == 0) return;
    parent_.say("promoted " + packages.rollback("p", "child").value());
    parent_.say("removing " + version);
    packages.remove("p", version).value();
    parent_.say("removed " + version);
  }

  void key(std::uint64_t i) {
    KeyStore& keys = store_.keys();
    const CreatedApiKey made = keys.create({.name = "k"}).value();
    parent_.say("key " + made.secret + " " + made.key.id);
    keys.set_quotas(made.key.id, {.requests_per_minute = 5}).value();
    parent_.say("quotas " + made.key.id);
    if (!keys.authenticate(made.secret, kUsedAt)) throw std::runtime_error("a new key is not known");
    keys.flush_last_used().value();
    parent_.say("used " + made.key.id);
    if (i % 2 == 0) return;
    parent_.say("removing " + made.secret);
    keys.revoke(made.key.id).value();
    parent_.say("removed " + made.secret);
  }

  void tokens() {
    store_.token_days().add({{"a", kDay, 1}, {"b", kDay, 1}, {"a", kOldDay, 1}}).value();
    parent_.say("tokens");
    store_.token_days().remove_before(kDay).value();
    parent_.say("days");
  }

  Store& store_;
  const fs::path& source_;
  Child& parent_;
};

/// Parts begin, and choose among what they can do, differently in each round, so that kills meet all of it.
void write_forever(const fs::path& root, const fs::path& source, std::uint64_t round, Child& parent) {
  const auto store = Store::open(root).value();
  store->jobs().recover().value();
  store->batches().recover().value();
  parent.say("open");
  Writer writer(*store, source, parent);
  for (std::uint64_t i = 0;; ++i) {
    for (std::size_t part = 0; part < Writer::kParts; ++part)
      writer.write((part + round) % Writer::kParts, round * 1'000'000 + i, round + i);
  }
}

/// What the child was told is done, over all rounds. Names of all kinds are different.
struct Told {
  AuditAnchor anchor;
  std::map<std::string, int> jobs, batches;  // how far each had come
  std::map<std::string, std::string> files;  // SHA-256 of each
  std::map<std::string, std::string> keys;   // ids by secret
  std::set<std::string> packages, removed, removing, checkpoints, processed, quotas, used;
  std::set<std::string> kinds;   // of lines
  std::set<std::string> recent;  // of this round
  std::string promoted;
  std::int64_t tokens = 0;
  std::string last;  // kind of the last line

  void hear(const std::string& line) {
    std::istringstream words(line);
    std::string a, b;
    words >> last >> a >> b;
    kinds.insert(last);
    recent.insert(a);
    if (last == "audit") anchor = {std::stoll(a), b};
    if (last == "job") jobs[a] = std::stoi(b);
    if (last == "batch") batches[a] = std::stoi(b);
    if (last == "file") files[a] = b;
    if (last == "key") keys[a] = b;
    if (last == "promoted") promoted = a;
    if (last == "tokens") ++tokens;
    for (const auto& [kind, set] :
         {std::pair{"package", &packages}, std::pair{"removed", &removed}, std::pair{"removing", &removing},
          std::pair{"checkpoint", &checkpoints}, std::pair{"processed", &processed}, std::pair{"quotas", &quotas},
          std::pair{"used", &used}}) {
      if (last == kind) set->insert(a);
    }
    EXPECT_NE(last, "error") << line;
  }
  /// Of something that was told to be there: what is there is as it should be.
  void expect_known(const std::string& name, bool known) const {
    if (removed.contains(name)) {
      EXPECT_FALSE(known) << name;
    }
    if (!removing.contains(name)) {
      EXPECT_TRUE(known) << name;
    }
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

int progress(const Batch& batch) {
  if (is_final(batch.status)) return 6;
  if (batch.status == BatchStatus::kFinalizing || batch.status == BatchStatus::kCancelling) return 5;
  return batch.status == BatchStatus::kValidating ? 0 : static_cast<int>(1 + batch.completed + batch.failed);
}

/// Entries of the audit log by action.
std::map<std::string, std::size_t> audited(Store& store) {
  std::map<std::string, std::size_t> counts;
  for (const AuditRecord& record : store.audit().entries(0, 1'000'000).value()) ++counts[record.entry.action];
  return counts;
}

void check_audit_and_jobs(Store& store, const Told& told) {
  const AuditVerdict verdict = store.audit().verify(told.anchor).value();
  EXPECT_TRUE(verdict.intact) << verdict.reason;
  EXPECT_LE(verdict.head.count, told.anchor.count + 4) << "all that is done with one package";
  std::size_t removed = 0;
  for (const auto& [id, at_least] : told.jobs) {
    const auto job = store.jobs().find(id);
    ASSERT_TRUE(job) << id;
    EXPECT_GE(progress(job->status), at_least) << id;
    if (at_least >= 2) {
      EXPECT_FALSE(store.jobs().events(id, {}).value().data.empty());
    }
    if (told.checkpoints.contains(id)) {
      EXPECT_EQ(store.jobs().checkpoints(id, {}).value().data.size(), 1U);
    }
    if (job->status != JobStatus::kSucceeded) continue;
    EXPECT_EQ(job->result["seed"], job->request["seed"]);
    const bool gone = store.jobs().model_removed(id).value();
    told.expect_known(id, !gone);
    if (told.recent.contains(id)) {
      EXPECT_EQ(store.jobs().find_by_model("ft:" + id).has_value(), !gone);
    }
    removed += gone ? 1 : 0;
  }
  EXPECT_EQ(audited(store)["model.delete"], removed) << "a model and its entry go together";
}

void check_batches(Store& store, const Told& told) {
  for (const auto& [id, at_least] : told.batches) {
    const auto batch = store.batches().find(id);
    ASSERT_TRUE(batch) << id;
    EXPECT_GE(progress(*batch), at_least) << id;
    const std::int64_t answered = batch->completed + batch->failed;
    EXPECT_EQ(batch->usage.value("tokens", 0), kTokensEach * answered) << "what was counted goes together";
    EXPECT_EQ(batch->total, batch->model.empty() ? 0 : kRequests);
    if (batch->status != BatchStatus::kCompleted) continue;
    EXPECT_EQ(answered, kRequests);
    const auto output = store.files().find(batch->output_file);
    ASSERT_TRUE(output) << "of a batch that ended: " << id;
    EXPECT_EQ(output->filename, id);
  }
}

void check_files(Store& store, const Told& told) {
  std::set<std::string> known, outputs;
  for (const FileRecord& file : store.files().list({.limit = 10'000}).value().data) {
    known.insert(file.id);
    EXPECT_TRUE(store.files().check_content(file)) << file.id;
    if (const auto wrote = told.files.find(file.id); wrote != told.files.end()) {
      EXPECT_EQ(file.sha256, wrote->second);
    }
    if (told.processed.contains(file.id)) {
      EXPECT_EQ(file.status, "processed");
    }
    if (file.purpose == "batch_output") {
      EXPECT_TRUE(outputs.insert(file.filename).second) << "two of batch " << file.filename;
      EXPECT_EQ(file.bytes, static_cast<std::int64_t>((file.filename.size() + 1) * kRequests));
    }
  }
  for (const auto& [id, hash] : told.files) told.expect_known(id, known.contains(id));
  EXPECT_EQ(entries(store.directory().files()), known.size());
}

void check_packages(Store& store, const Told& told) {
  std::set<std::string> known;
  std::size_t owned = 0;
  for (const PackageRecord& package : store.packages().list("p").value()) {
    known.insert(package.version);
    owned += package.owned ? 1 : 0;
    EXPECT_EQ(sha256_file(package.path / "manifest.json").value(), package.lineage.manifest_sha256);
    EXPECT_EQ(fs::file_size(package.path / "base" / "model.bin"), 20'000U) << package.path;
  }
  for (const std::string& version : told.packages) told.expect_known(version, known.contains(version));
  if (fs::exists(store.directory().packages() / "p")) {
    EXPECT_EQ(entries(store.directory().packages() / "p"), owned);
  }
  auto actions = audited(store);
  EXPECT_EQ(actions["package.add"] - actions["package.remove"], known.size()) << "a package and its entry go together";
  EXPECT_EQ(actions["package.promote"] + actions["package.rollback"], store.packages().history("p").value().size());
  const auto promoted = store.packages().promoted("p").value();
  // What comes after these changes it, and may have happened.
  if (!told.promoted.empty() && told.last != "package" && told.last != "promoted") {
    ASSERT_TRUE(promoted);
    EXPECT_EQ(promoted->version, told.promoted);
  }
}

void check_keys_and_tokens(Store& store, const Told& told) {
  for (const auto& [secret, id] : told.keys) {
    told.expect_known(secret, store.keys().authenticate(secret, 0) != nullptr);
    const ApiKey key = store.keys().find(id).value();
    if (told.quotas.contains(id)) {
      EXPECT_EQ(key.quotas.requests_per_minute, 5);
    }
    if (told.used.contains(id)) {
      EXPECT_EQ(key.last_used_at, kUsedAt);
    }
  }
  const std::vector<ApiKey> keys = store.keys().list().value();
  auto actions = audited(store);
  EXPECT_EQ(actions["key.create"], keys.size()) << "a key and its entry go together";
  const auto revoked =
      std::count_if(keys.begin(), keys.end(), [](const ApiKey& k) { return k.revoked_at.has_value(); });
  EXPECT_EQ(actions["key.revoke"], static_cast<std::size_t>(revoked));
  std::map<std::string, std::int64_t> used;
  for (const DayUsage& usage : store.token_days().of_day(kDay).value()) used[usage.key_id] = usage.tokens;
  EXPECT_EQ(used["a"], used["b"]) << "one transaction";
  EXPECT_GE(used["a"], told.tokens);
  EXPECT_LE(used["a"], told.tokens + 1);
  if (told.last == "days") {
    EXPECT_TRUE(store.token_days().of_day(kOldDay).value().empty());
  }
}

/// What a restart changes of what may be expected, and what was done though nobody was told any more.
void go_on(Store& store, Told& told, bool recover) {
  if (recover) {
    for (const std::string& id : store.jobs().recover().value())
      EXPECT_EQ(store.jobs().find(id).value().status, JobStatus::kQueued);
    for (const std::string& id : store.batches().recover().value())
      EXPECT_NE(store.batches().find(id).value().status, BatchStatus::kFinalizing);
  }
  for (auto& [id, at_least] : told.jobs) at_least = at_least == 2 ? 1 : at_least;
  for (auto& [id, at_least] : told.batches) at_least = at_least == 5 ? 4 : at_least;
  const auto promoted = store.packages().promoted("p").value();
  told.promoted = promoted ? promoted->version : "";
  told.last.clear();
  told.recent.clear();
  told.anchor = store.audit().head().value();
  told.tokens = 0;
  for (const DayUsage& usage : store.token_days().of_day(kDay).value()) told.tokens = usage.tokens;
}

/// TAILOR_CRASHES sets how often; the slow suite takes 1000.
TEST(StoreCrash, NothingThatWasAcknowledgedIsLostAndNothingHalfIsSeen) {
  const char* const wanted = std::getenv("TAILOR_CRASHES");
  const int crashes = wanted != nullptr ? std::atoi(wanted) : 100;
  const TemporaryDirectory dir{quick_place("tailor-crash")};
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
      const std::uint64_t lines = round % 10 == 0 ? 0 : 1 + rng.below(60);
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
    check_audit_and_jobs(**store, told);
    check_batches(**store, told);
    check_files(**store, told);
    check_packages(**store, told);
    check_keys_and_tokens(**store, told);
    EXPECT_EQ(entries((*store)->directory().root() / "sessions"), 1U);
    go_on(**store, told, round % 2 == 0);
    if (HasFailure()) FAIL() << "in round " << round;
    reached += told.packages.empty() ? 0 : 1;
  }
  EXPECT_GT(reached, crashes / 2) << "the children were killed before they did anything";
  if (crashes < 50) return;
  EXPECT_EQ(told.kinds,
            (std::set<std::string>{"open", "audit", "job", "checkpoint", "batch", "file", "processed", "package",
                                   "promoted", "key", "quotas", "used", "tokens", "days", "removing", "removed"}));
}

}  // namespace
}  // namespace tailor
