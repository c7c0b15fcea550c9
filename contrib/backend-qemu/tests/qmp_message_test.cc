#include "worker/qmp_message.h"

#include <gtest/gtest.h>

#include "vmmhost/error.h"

namespace qemubackend {
namespace {

using Kind = QmpMessage::Kind;

std::vector<std::string> linesOf(std::string_view bytes, std::size_t step) {
  LineReader reader;
  std::vector<std::string> lines;
  while (!bytes.empty()) {
    reader.feed(bytes.substr(0, step));
    bytes.remove_prefix(std::min(step, bytes.size()));
    while (auto line = reader.next()) {
      lines.push_back(*line);
    }
  }
  return lines;
}

TEST(LineReaderTest, linesAreTheSameHoweverTheyArrive) {
  const std::vector<std::string> expected = {"{}", "", "{\"a\":1}", "x"};
  for (const std::size_t step : {1, 2, 3, 7, 100}) {
    EXPECT_EQ(linesOf("{}\r\n\r\n{\"a\":1}\nx\nunended", step), expected) << step;
  }
}

TEST(LineReaderTest, longLine_isRefusedBeforeAndAfterItsEnd) {
  const std::string longest(LineReader::kMaxLineBytes, 'x');
  EXPECT_EQ(linesOf(longest + "\n", 4096).size(), 1u);
  EXPECT_THROW(linesOf(longest + "x\n", 1 << 20), vmmhost::Error);
  EXPECT_THROW(linesOf(longest + "x", 4096), vmmhost::Error);
}

TEST(QmpMessageTest, messagesOfARealQemu_areUnderstood) {
  const auto greeting = parseQmpMessage(
      R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}})");
  EXPECT_EQ(greeting.kind, Kind::kGreeting);

  const auto result = parseQmpMessage(R"({"return": {}, "id": 1})");
  EXPECT_EQ(result.kind, Kind::kResult);
  EXPECT_EQ(result.id, 1u);

  const auto status = parseQmpMessage(
      R"({"return": {"status": "prelaunch", "singlestep": false, "running": false}, "id": 18446744073709551615})");
  EXPECT_EQ(status.status, "prelaunch");
  EXPECT_EQ(status.id, 18446744073709551615u);

  EXPECT_FALSE(status.actual);
  EXPECT_EQ(parseQmpMessage(R"({"return": {"actual": 134217728}, "id": 2})").actual, 134217728);
  EXPECT_EQ(parseQmpMessage(R"({"return": {"actual": -4096}, "id": 2})").actual, -4096);

  const auto error = parseQmpMessage(R"({"id": 3, "error": {"class": "GenericError", "desc": "no \"such\" thing"}})");
  EXPECT_EQ(error.kind, Kind::kError);
  EXPECT_EQ(error.description, "no \"such\" thing");

  const auto event = parseQmpMessage(
      R"({"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}})");
  EXPECT_EQ(event.kind, Kind::kEvent);
  EXPECT_EQ(event.name, "SHUTDOWN");
  EXPECT_EQ(event.reason, "guest-reset");
  EXPECT_TRUE(event.guest);
}

TEST(QmpMessageTest, errorOfADisk_tellsWhichAndWhy) {
  const auto event = parseQmpMessage(
      R"({"event":"BLOCK_IO_ERROR","data":{"device":"","node-name":"disk1","reason":"No space left on device","operation":"write","action":"report"}})");
  EXPECT_EQ(event.node, "disk1");
  EXPECT_EQ(event.reason, "No space left on device");
  EXPECT_EQ(event.action, "report");
}

TEST(QmpMessageTest, fieldsCountOnlyInTheirPlace) {
  const auto event = parseQmpMessage(
      R"({"event":"STOP","data":{"nested":{"reason":"guest-reset"},"list":["reason","x"]},"reason":"guest-panic","status":"x"})");
  EXPECT_FALSE(parseQmpMessage(R"({"return":{"x":{"actual":1},"actual":"1"},"actual":1,"id":1})").actual);
  EXPECT_EQ(event.reason, "");
  EXPECT_EQ(event.status, "");
  EXPECT_FALSE(event.guest);
}

TEST(QmpMessageTest, whatIsNoMessage_isRefused) {
  const std::string deep = R"({"event":"X","data":)" + std::string(40, '[') + std::string(40, ']') + "}";
  for (const std::string& line : {
           std::string(""),
           std::string("{"),
           std::string("null"),
           std::string("[]"),
           std::string("\"x\""),
           std::string("{}"),
           std::string("{\"return\":{}}"),
           std::string(R"({"return":{},"id":"1"})"),
           std::string(R"({"return":{},"id":-1})"),
           std::string(R"({"return":{},"id":1.5})"),
           std::string(R"({"return":{},"id":18446744073709551616})"),
           std::string(R"({"return":{},"id":1,"id":2})"),
           std::string(R"({"return":{"actual":9223372036854775808},"id":1})"),
           std::string(R"({"return":{},"return":{},"id":1})"),
           std::string(R"({"return":{},"error":{},"id":1})"),
           std::string(R"({"event":"A","return":{},"id":1})"),
           std::string(R"({"event":7})"),
           std::string(R"({"event":""})"),
           std::string(R"({"event":"A"} x)"),
           std::string(R"({"error":{"desc":"no id"}})"),
           std::string("{\"event\":\"\xff\"}"),
           std::string(R"({"event":"A",})"),
           std::string("{\"event\":\"A\0\"}", 14),
           deep,
       }) {
    EXPECT_THROW(parseQmpMessage(line), vmmhost::Error) << line;
  }
}

TEST(QmpMessageTest, anyTruncationOfAMessage_isRefused) {
  const std::string line =
      R"({"timestamp":{"seconds":1},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}})";
  for (std::size_t size = 0; size < line.size(); ++size) {
    EXPECT_THROW(parseQmpMessage(line.substr(0, size)), vmmhost::Error) << size;
  }
}

TEST(QmpMessageTest, longTexts_areCutShort) {
  const auto event = parseQmpMessage("{\"event\":\"" + std::string(60000, 'E') + "\"}");
  EXPECT_LE(event.name.size(), 1024u);
}

TEST(QmpMessageTest, command_isOneLineOfJson) {
  EXPECT_EQ(formatQmpCommand(7, "stop"), "{\"execute\":\"stop\",\"id\":7}\r\n");
  EXPECT_EQ(formatQmpCommand(8, "set-action", R"({"reboot":"reset"})"),
            "{\"execute\":\"set-action\",\"id\":8,\"arguments\":{\"reboot\":\"reset\"}}\r\n");
}

}  // namespace
}  // namespace qemubackend
