#include "store/package_store.h"

#include "store/store_testing.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

TEST(PackageStore, KeepsWhatWasAdded) {
  TestStore store;
  const fs::path source = store.package();
  const PackageLineage lineage{.method = "lora",
                               .trial = "trial-3",
                               .data_sha256 = "aa",
                               .base_model_id = "smollm2",
                               .base_model_sha256 = "bb",
                               .scores = {{"accuracy", 0.93}}};
  const PackageRecord added = store->packages().add("support", "1", source, lineage).value();
  fs::remove_all(source);
  store.open();
  const PackageRecord found = store->packages().find("support", "1").value();
  EXPECT_TRUE(found.owned);
  EXPECT_EQ(found.path, store->directory().packages() / "support" / "1");
  EXPECT_EQ(read_file(found.path / "base" / "model.bin").value(), "weights");
  EXPECT_EQ(found.lineage.manifest_sha256, sha256_file(found.path / "manifest.json").value());
  EXPECT_EQ(found.lineage.method, "lora");
  EXPECT_EQ(found.lineage.trial, "trial-3");
  EXPECT_EQ(found.lineage.data_sha256, "aa");
  EXPECT_EQ(found.lineage.base_model_id, "smollm2");
  EXPECT_EQ(found.lineage.base_model_sha256, "bb");
  EXPECT_EQ(found.lineage.scores["accuracy"], 0.93);
  EXPECT_EQ(found.created_at, store.now);
  EXPECT_EQ(added.path, found.path);
}

TEST(PackageStore, HardLinksShareBytesAndReferencesStayOutside) {
  const TestStore store;
  const fs::path source = store.package();
  const PackageRecord linked = store->packages().add("a", "1", source, {}, PackagePlacement::kHardLink).value();
  EXPECT_TRUE(fs::equivalent(linked.path / "manifest.json", source / "manifest.json"));
  const PackageRecord copied = store->packages().add("a", "2", source, {}).value();
  EXPECT_FALSE(fs::equivalent(copied.path / "manifest.json", source / "manifest.json"));
  const PackageRecord reference = store->packages().add("a", "3", source, {}, PackagePlacement::kReference).value();
  EXPECT_FALSE(reference.owned);
  EXPECT_EQ(reference.path, fs::canonical(source));
  store->packages().remove("a", "3").value();
  EXPECT_TRUE(fs::exists(source / "manifest.json"));
}

TEST(PackageStore, VersionsNeverChange) {
  const TestStore store;
  store->packages().add("a", "1", store.package("one"), {}).value();
  for (const PackagePlacement placement : {PackagePlacement::kCopy, PackagePlacement::kReference}) {
    const auto again = store->packages().add("a", "1", store.package("two"), {}, placement);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(read_file(store->packages().find("a", "1").value().path / "base" / "model.bin").value(), "one");
}

TEST(PackageStore, RefusesWhatCouldLeadOutOfTheStore) {
  const TestStore store;
  const fs::path source = store.package();
  for (const char* name : {"..", "../x", "/etc", "a/b", ".", ""}) {
    EXPECT_EQ(store->packages().add(name, "1", source, {}).error().code, ErrorCode::kInvalidArgument) << name;
    EXPECT_EQ(store->packages().add("a", name, source, {}).error().code, ErrorCode::kInvalidArgument) << name;
    EXPECT_FALSE(store->packages().find("a", name));
  }
  fs::create_symlink("/etc/passwd", source / "base" / "link");
  const auto linked = store->packages().add("a", "1", source, {});
  ASSERT_FALSE(linked);
  EXPECT_NE(linked.error().message.find("link"), std::string::npos);
  EXPECT_EQ(store->packages().add("a", "1", source / "base", {}).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(store->packages().list().value().empty());
  EXPECT_EQ(entries(store->directory().packages()), 0U);
  fs::remove(source / "base" / "link");
  EXPECT_TRUE(store->packages().add("a", "1", source, {})) << "a failed try leaves nothing in the way";
}

TEST(PackageStore, DirectoriesThatItDoesNotKnowStay) {
  const TestStore store;
  const fs::path stranger = store->directory().packages() / "a" / "1";
  make_directories(stranger).value();
  write_file_atomic(stranger / "precious", "x").value();
  const auto added = store->packages().add("a", "1", store.package(), {});
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(fs::exists(stranger / "precious"));
  fs::remove_all(stranger);
  EXPECT_TRUE(store->packages().add("a", "1", store.package(), {}));
}

TEST(PackageStore, PromotesAndRollsBack) {
  TestStore store;
  PackageStore& packages = store->packages();
  for (const char* version : {"1", "2", "3"}) packages.add("a", version, store.package(), {}).value();
  EXPECT_FALSE(packages.promoted("a").value());
  EXPECT_EQ(packages.rollback("a", "me").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(packages.promote("a", "9", "me").error().code, ErrorCode::kNotFound);
  for (const char* version : {"1", "2", "2", "3"}) packages.promote("a", version, "me").value();
  packages.promote("a", "1", "me", "canary").value();
  EXPECT_EQ(packages.promoted("a").value()->version, "3");
  EXPECT_EQ(packages.promoted("a", "canary").value()->version, "1");
  EXPECT_EQ(packages.rollback("a", "you").value(), "2");
  EXPECT_EQ(packages.promoted("a").value()->version, "2");
  EXPECT_EQ(packages.rollback("a", "you").value(), "1");
  EXPECT_EQ(packages.rollback("a", "you").error().code, ErrorCode::kNotFound);
  packages.promote("a", "3", "me").value();
  store.open();
  EXPECT_EQ(store->packages().promoted("a").value()->version, "3");
  EXPECT_EQ(store->packages().rollback("a", "you").value(), "1") << "what was undone is not come back to";
  std::string told;
  for (const Promotion& p : store->packages().history("a").value()) told += p.action[0] + p.version + " ";
  EXPECT_EQ(told, "p1 p2 p3 r2 r1 p3 r1 ");
  EXPECT_EQ(store->packages().history("a").value().back().actor, "you");
}

TEST(PackageStore, RemovesOnlyWhatIsNotInUse) {
  const TestStore store;
  PackageStore& packages = store->packages();
  for (const char* version : {"1", "2", "3"}) {
    packages.add("a", version, store.package(), {}).value();
    packages.promote("a", version, "me").value();
  }
  const auto in_use = packages.remove("a", "3");
  ASSERT_FALSE(in_use);
  EXPECT_NE(in_use.error().message.find("production"), std::string::npos);
  packages.remove("a", "2").value();
  EXPECT_FALSE(fs::exists(store->directory().packages() / "a" / "2"));
  EXPECT_EQ(packages.find("a", "2").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(packages.remove("a", "2").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(packages.rollback("a", "me").value(), "1") << "a removed version is not come back to";
  EXPECT_EQ(packages.list("a").value().size(), 2U);
  EXPECT_TRUE(packages.list("b").value().empty());
  EXPECT_TRUE(packages.add("a", "2", store.package(), {})) << "the name is free again";
}

TEST(PackageStore, WhatWasDoneStandsInTheAuditLog) {
  const TestStore store;
  PackageStore& packages = store->packages();
  const PackageRecord added = packages.add("a", "1", store.package(), {}, PackagePlacement::kCopy, "key_a").value();
  packages.add("a", "2", store.package(), {}, PackagePlacement::kReference).value();
  EXPECT_FALSE(packages.add("a", "2", store.package(), {}));
  for (const char* version : {"1", "1", "2"}) packages.promote("a", version, "key_a").value();
  EXPECT_FALSE(packages.remove("a", "2"));
  packages.rollback("a", "key_b").value();
  packages.remove("a", "2", "key_b").value();
  std::string told;
  for (const AuditRecord& record : store->audit().entries(0, 100).value()) {
    const AuditEntry& entry = record.entry;
    told += entry.actor + " " + entry.action + " " + entry.object + " " + entry.details.value("stage", "") + "\n";
  }
  ASSERT_EQ(told,
            "key_a package.add a@1 \n"
            "command line package.add a@2 \n"
            "key_a package.promote a@1 production\n"
            "key_a package.promote a@2 production\n"
            "key_b package.rollback a@1 production\n"
            "key_b package.remove a@2 \n")
      << "of what was done alone";
  const Json first = store->audit().entries(0, 1).value()[0].entry.details;
  EXPECT_EQ(first["manifest_sha256"], added.lineage.manifest_sha256);
  EXPECT_EQ(first["owned"], true);
}

TEST(PackageStore, WhatWasDoneAndItsAuditEntryAreThereTogether) {
  const TestStore store;
  PackageStore& packages = store->packages();
  for (const char* version : {"1", "2", "3"}) packages.add("a", version, store.package(), {}).value();
  for (const char* version : {"1", "2"}) packages.promote("a", version, "me").value();
  close_audit(*store.store);
  EXPECT_FALSE(packages.add("a", "4", store.package(), {}));
  EXPECT_FALSE(packages.add("a", "4", store.package(), {}, PackagePlacement::kReference));
  EXPECT_FALSE(packages.promote("a", "3", "me"));
  EXPECT_FALSE(packages.rollback("a", "me"));
  EXPECT_FALSE(packages.remove("a", "3"));
  EXPECT_EQ(packages.list().value().size(), 3U);
  EXPECT_EQ(packages.promoted("a").value()->version, "2");
  EXPECT_EQ(packages.history("a").value().size(), 2U);
  EXPECT_EQ(entries(store->directory().packages() / "a"), 3U) << "neither more nor fewer files";
}

TEST(PackageStore, AFullDiskLeavesNothing) {
  const TestStore store;
  const fs::path source = store.package(std::string(1 << 20, 'x'));
  const auto add_to_full = [&] {
    const FullDisk full(700 << 10);
    return store->packages().add("a", "1", source, {});
  };
  const auto added = add_to_full();
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, ErrorCode::kIo);
  EXPECT_TRUE(store->packages().list().value().empty());
  EXPECT_EQ(entries(store->directory().root() / "sessions" / store->directory().session()), 1U) << "its lock alone";
  EXPECT_TRUE(store->packages().add("a", "1", source, {}));
}

}  // namespace
}  // namespace tailor
