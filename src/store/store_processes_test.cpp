/// Several processes at one store.

#include <array>
#include <set>

#include "store/store_testing.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

/// The directory of another process in the making is no foreign one.
TEST(StoreProcesses, SeveralMakeItAtOnce) {
  const TemporaryDirectory dir{quick_place("tailor-processes")};
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
  const TemporaryDirectory dir{quick_place("tailor-processes")};
  const fs::path root = dir.path() / "store", source = dir.path() / "source";
  make_directories(source).value();
  write_file_atomic(source / "manifest.json", "{}").value();
  const auto work = [&](Child& parent) {
    parent.hear();
    const auto store = Store::open(root).value();  // both make it
    for (int i = 0; i < 30; ++i) {
      store->audit().append({"child", "write", "", {}}).value();
      const std::string job = store->jobs().create({.owner = "k"}).value().value().id;
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
  EXPECT_EQ(store->audit().verify().value().head.count, 60 + 30) << "those of packages too";
  EXPECT_TRUE(store->audit().verify().value().intact);
  EXPECT_EQ(store->packages().list().value().size(), 30U);
}

}  // namespace
}  // namespace tailor
