import java.util.*;
import java.util.function.*;
import java.util.stream.*;
public class Language {
  interface Shape { double area(); default String name() { return "shape " + area(); } }
  record Circle(double r) implements Shape { public double area() { return Math.PI*r*r; } }
  enum Color { RED, GREEN }
  static int f(int n) { if (n == 0) throw new IllegalStateException("deep"); return f(n-1)+1; }
  public static void main(String[] a) throws Exception {
    int x = 5; String s = "x=" + x + " " + 3.5 + 'c' + true + 7L;
    System.out.println(s);
    Supplier<String> sup = () -> "lambda " + s.length();
    System.out.println(sup.get());
    System.out.println(new Circle(2).name() + new Circle(3));
    System.out.println(IntStream.range(0, 100).filter(i -> i % 3 == 0).mapToObj(Integer::toString).collect(Collectors.joining(",")));
    Map<String,Integer> m = new HashMap<>(); for (String w : "a b c a b a".split(" ")) m.merge(w, 1, Integer::sum);
    System.out.println(new TreeMap<>(m));
    try { f(3); } catch (IllegalStateException e) { StackTraceElement[] t = e.getStackTrace(); System.out.println(e + " " + t.length + " " + t[0]); }
    try { Object o = "s"; Integer i = (Integer)o; } catch (ClassCastException e) { System.out.println(e.getMessage()); }
    try { int[] q = new int[2]; q[2] = 1; } catch (ArrayIndexOutOfBoundsException e) { System.out.println(e.getMessage()); }
    try { rec(); } catch (StackOverflowError e) { System.out.println("SOE"); }
    switch (Color.valueOf("GREEN")) { case RED: System.out.println("r"); break; case GREEN: System.out.println("g"); }
    Thread[] ts = new Thread[4]; int[] c = new int[1]; Object lock = new Object();
    for (int i = 0; i < 4; i++) { ts[i] = new Thread(() -> { for (int k = 0; k < 10000; k++) synchronized (lock) { c[0]++; } }); ts[i].start(); }
    for (Thread t : ts) t.join();
    System.out.println(c[0]);
    System.out.println(String.format("%5.2f|%s|%d", 3.14159, "x", 42));
    new Lower().all(new Lower());
    System.out.println(Language.class.getDeclaredMethod("f", int.class).invoke(null, 0) );
  }
  static int rec() { return rec() + 1; }
  // One constant of the class file, called as the superclass's method first and by the receiver's class then, and the other way around.
  static class Upper { String one() { return "upper"; } String two() { return "upper"; } }
  static class Lower extends Upper {
    String one() { return "lower of " + super.one(); }
    String two() { return "lower"; }
    String two(Upper other) { return other.two() + " " + super.two(); }
    void all(Upper other) {
      System.out.println(one() + ", " + other.one() + ", " + two(other) + ", " + two(new Upper()));
    }
  }
}
