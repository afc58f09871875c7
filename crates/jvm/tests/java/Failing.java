import static org.junit.Assert.assertEquals;

import org.junit.Ignore;
import org.junit.Test;
import org.junit.runner.JUnitCore;
import org.junit.runner.Result;
import org.junit.runner.notification.Failure;

/** Tests for JUnit, one of which fails. */
public class Failing {
  @Test public void passes() { assertEquals(4, 2 + 2); }
  @Test public void fails() { assertEquals("four", 4, 5); }
  @Test(expected = ArithmeticException.class) public void throwsAsExpected() { System.out.println(1 / (1 - 1)); }
  @Ignore @Test public void ignored() { }

  public static void main(String[] arguments) {
    Result result = JUnitCore.runClasses(Failing.class);
    System.out.println(result.getRunCount() + " " + result.getFailureCount() + " " + result.getIgnoreCount());
    for (Failure failure : result.getFailures()) System.out.println(failure.getTrace());
    System.exit(result.wasSuccessful() ? 0 : 1);
  }
}
