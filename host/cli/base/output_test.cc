#include "host/cli/base/output.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

namespace vmmhost::cli {
namespace {

TEST(Output, bytes_haveTheShortestExactForm) {
  EXPECT_EQ(formatBytes(0), "0");
  EXPECT_EQ(formatBytes(1023), "1023");
  EXPECT_EQ(formatBytes(std::uint64_t{512} << 20), "512M");
  EXPECT_EQ(formatBytes(std::uint64_t{3} << 29), "1.5G");
  EXPECT_EQ(formatBytes(~std::uint64_t{0}), "16.0E");
}

TEST(Output, seconds_haveTwoUnitsAtMost) {
  EXPECT_EQ(formatSeconds(-5), "0s");
  EXPECT_EQ(formatSeconds(59), "59s");
  EXPECT_EQ(formatSeconds(192), "3m12s");
  EXPECT_EQ(formatSeconds(18180), "5h03m");
  EXPECT_EQ(formatSeconds(1051200), "12d04h");
}

TEST(Output, table_alignsWithoutBlanksAtTheEnds) {
  Table table({"A", "LONG", "C"});
  table.add({"xyz", "1", ""});
  EXPECT_EQ(table.str(), "A    LONG  C\nxyz  1\n");
}

TEST(Output, errorObjects_haveAFieldWhereThereIsOne) {
  const auto written = [](const Error& error) {
    config::JsonWriter json(false);
    writeErrorObject(json, error);
    return json.str();
  };
  const Error error(ErrorCode::kInvalidArgument, "cpus.count: 0", "more");
  EXPECT_EQ(written(error), R"({"code":"invalidArgument","message":"cpus.count: 0","hint":"more","retryable":false})");
  EXPECT_EQ(written(error.withField("cpus.count")),
            R"({"code":"invalidArgument","message":"cpus.count: 0","hint":"more","retryable":false,)"
            R"("field":"cpus.count"})");
}

// Scripts know no other.
TEST(Output, supervisorThatIsGone_hasTheCodeThatItHad) {
  config::JsonWriter json(false);
  writeErrorObject(json, Error(ErrorCode::kSupervisorDied, "gone"));
  EXPECT_EQ(json.str(), R"({"code":"workerDied","message":"gone","hint":"","retryable":false})");
  EXPECT_EQ(errorCodeName(ErrorCode::kSupervisorDied), "supervisorDied") << "in logs";
}

TEST(Output, outcomes_areToldInOneLine) {
  const auto described = [](auto fill) {
    capnp::MallocMessageBuilder message;
    auto outcome = message.initRoot<schema::Outcome>();
    fill(outcome);
    return describeOutcome(outcome.asReader());
  };
  EXPECT_EQ(described([](auto& outcome) { outcome.setCause(schema::EndCause::POWER_OFF); }), "powered off");
  EXPECT_EQ(described([](auto& outcome) {
              outcome.setCause(schema::EndCause::PANIC);
              outcome.setDetail("not\nsyncing");
            }),
            "panicked: not\\nsyncing");
  EXPECT_EQ(described([](auto& outcome) {
              outcome.setKind(schema::EndKind::WORKER_DIED);
              outcome.getWorkerExit().setSignal(9);
            }),
            "worker died: signal 9");
  EXPECT_EQ(described([](auto& outcome) {
              outcome.setKind(schema::EndKind::START_FAILED);
              outcome.initError().setMessage("no kernel");
            }),
            "did not start: no kernel");
  EXPECT_EQ(described([](auto& outcome) { outcome.setKind(static_cast<schema::EndKind>(99)); }), "ended, kind 99");
}

}  // namespace
}  // namespace vmmhost::cli
