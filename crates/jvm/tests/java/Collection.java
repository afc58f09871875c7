import java.util.*;
public class Collection { static Object[] keep = new Object[1000];
 public static void main(String[] a) { long sum=0; Random r = new Random(1);
  for (int i=0;i<3000000;i++) { Object[] n = new Object[r.nextInt(20)]; String s = "v"+i; if (n.length>0) n[0]=s; keep[r.nextInt(1000)] = n; sum+=s.length(); }
  int c=0; for (Object o: keep) if (o!=null && ((Object[])o).length>0) c+=((String)((Object[])o)[0]).length(); System.out.println(sum+" "+c); } }
